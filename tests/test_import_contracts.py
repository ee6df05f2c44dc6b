"""The import contracts of pyproject.toml, which `make lint` holds: each of them can be broken."""

import os
import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]
# One wrong import for each contract: the module that gets it, and the import.
WRONG = {
    "Data flows one way": ("dataset/example.py", "import emojitune.jobs.states"),
    "Server": ("server/chat/routes.py", "import emojitune.server.responses.routes"),
    "Inference": ("inference/engine/batch.py", "import emojitune.inference.decoding.sampling"),
    "Dataset": ("dataset/rules.py", "import emojitune.dataset.validation"),
    "The workflow": ("workflow/progress.py", "import emojitune.store.tables"),
    "Only the store": ("server/context.py", "import sqlalchemy"),
    "Where nothing is computed": ("labels.py", "import torch"),
    "Commands": ("cli/render.py", "import numpy"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report on a copy of the code with all the wrong imports, and a package in no layer."""
    copy = tmp_path_factory.mktemp("copy")
    package = copy / "src/emojitune"
    shutil.copytree(ROOT / "src/emojitune", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for module, wrong in WRONG.values():
        path = package / module
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{wrong}\n", encoding="utf-8")
    (package / "newcomer").mkdir()
    (package / "newcomer/__init__.py").write_text("")
    command = [Path(sysconfig.get_path("scripts")) / "lint-imports", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def test_each_contract_has_its_wrong_import() -> None:
    names = [contract["name"] for contract in CONTRACTS]
    assert len(names) == len(WRONG)
    assert all(any(name.startswith(beginning) for name in names) for beginning in WRONG)


@pytest.mark.parametrize("beginning", WRONG)
def test_a_wrong_import_breaks_its_contract(report: str, beginning: str) -> None:
    assert re.search(rf"^{beginning}.* BROKEN$", report, re.MULTILINE)
    module, wrong = WRONG[beginning]
    importer = f"emojitune.{module.removesuffix('.py').replace('/', '.')}"
    imported = wrong.removeprefix("import ")
    assert re.search(rf"{re.escape(importer)} -> {re.escape(imported)}\b", report)


def test_a_package_belongs_to_a_layer(report: str) -> None:
    assert "- emojitune.newcomer\n" in report
