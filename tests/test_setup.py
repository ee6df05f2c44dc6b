"""`make setup` installs exactly the locked files."""

import os
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LISTS = sorted((ROOT / "requirements").glob("*.txt"))


def locked(path: Path) -> dict[str, str]:
    """Names and versions in a requirements list; every entry must have hashes."""
    entries = re.split(r"\n(?=[\w])", re.sub(r"(?m)^#.*\n", "", path.read_text()).strip())
    for entry in entries:
        assert re.search(r"(?: \\\n    --hash=sha256:[0-9a-f]{64})+$", entry), entry
    return pins("\n".join(entries))


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text)
    return {canonicalize_name(name): version for name, version in found}


def test_the_lists_have_the_versions_of_the_constraints() -> None:
    assert [path.stem for path in LISTS] == ["bench", "dev", "product"]
    every = {pin for path in LISTS for pin in locked(path).items()}
    constraints = pins((ROOT / "constraints.txt").read_text())
    assert every == constraints.items() - {("torch", constraints["torch"])}


@pytest.mark.parametrize("extra", ["", "dev"])
def test_the_lists_include_all_requirements(extra: str) -> None:
    found = locked(ROOT / "requirements" / f"{extra or 'product'}.txt")
    waiting, seen = [("emojitune", extra)], set()
    while waiting:
        name, asked = waiting.pop()
        seen.add(canonicalize_name(name))
        for text in distribution(name).requires or []:
            needed = Requirement(text)
            wanted = needed.marker is None or needed.marker.evaluate({"extra": asked})
            if wanted and (key := canonicalize_name(needed.name)) not in seen:
                waiting += [(key, one) for one in ("", *needed.extras)]
    # The packages of a torch build are installed with it.
    assert {name for name in seen - found.keys() if not name.startswith(("nvidia-", "cuda-"))} <= {
        "emojitune",
        "torch",
        "triton",
    }


def test_a_package_with_another_hash_is_rejected(tmp_path: Path) -> None:
    first = next(line for line in LISTS[2].read_text().splitlines() if "==" in line)
    name, version = re.split("==| ", first)[:2]
    with ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("evil.py", "")
        info = f"{name}-{version}.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        wheel.writestr(f"{info}/RECORD", "")
    # This environment stands in for a new one; nothing is installed.
    new = tmp_path / "new"
    new.mkdir()
    (new / "bin").symlink_to(Path(sys.executable).parent)
    (new / ".python").touch()
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_DRY_RUN": "1"}
    ran = subprocess.run(
        ["make", "setup", f"VENV={new}"],
        cwd=ROOT,
        env={**os.environ, **index, "PIP_IGNORE_INSTALLED": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in ran.stderr
    assert f"{name}=={version}" in ran.stderr
    assert not (new / ".product").exists()
