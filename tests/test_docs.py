"""The pages name files, tests, make targets and headings that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("*.py"))
)


def anchors(page: Path) -> set[str]:
    """The link targets of a page's headings, as GitHub derives them."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"\b((?:tests|benchmarks|docs|data|src)/[\w./-]*\.\w+)", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    modules = re.findall(r"`((?:[a-z_]+/)+[a-z_0-9]+\.py)`", text)
    roots = (ROOT, ROOT / "src/emojitune", ROOT / "src/emojitune/inference")
    assert [m for m in modules if not any((root / m).exists() for root in roots)] == []
    tests = re.findall(r"\btest_[a-z0-9_]{12,}\b(?!\.py)", text)
    assert [name for name in tests if f"def {name}(" not in SOURCES] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make ([a-z-]+)", text)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"
