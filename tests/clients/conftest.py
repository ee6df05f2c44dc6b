"""A server, a fine-tuned model on it, and temporary environments for clients."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from environments import CONSTRAINTS, KEY, LOCKS, Server, copy_installed, install, wait_for
from openai import OpenAI
from tiny_model import make_tiny_base


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server") / "home"
    # Tools and a schema from LangChain make long prompts.
    base = make_tiny_base(home.parent / "base", context_length=1024)
    command = [sys.executable, "-m", "emojitune.cli.main", "serve", "--port", "0"]
    environment = {
        **os.environ,
        "EMOJITUNE_HOME": str(home),
        "EMOJITUNE_BASE_MODEL": str(base),
        "EMOJITUNE_API_KEY": KEY,
        "EMOJITUNE_DEVICE": "cpu",
        "EMOJITUNE_DTYPE": "float32",
        "EMOJITUNE_THREADS": "1",
    }
    log = home.parent / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        url = wait_for(process, home, log)
        # Not this process's: clients run without emojitune and the variables of these tests.
        clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        yield Server(url, {**clean, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY})
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What a day, number {number}"},
                {"role": "assistant", "content": ("(party)", "(devil)")[number % 2]},
            ]
        }
        for number in range(10)
    ]
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def tuned(server: Server, training_file: Path) -> str:
    """The name of a fine-tuned model, for clients that only chat."""
    with OpenAI(base_url=server.url, api_key=KEY) as client:
        file = client.files.create(file=training_file, purpose="fine-tune")
        jobs = client.fine_tuning.jobs
        job = jobs.create(
            model="gpt-3.5-turbo", training_file=file.id, hyperparameters={"n_epochs": 1}
        )
        while job.status not in ("succeeded", "failed", "cancelled"):
            time.sleep(0.2)
            job = jobs.retrieve(job.id)
        assert job.fine_tuned_model, job.error
        return job.fine_tuned_model


@pytest.fixture(scope="session")
def python_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes an environment with these packages at their pinned versions: its interpreter."""
    pinned = "\n".join(path.read_text(encoding="utf-8") for path in CONSTRAINTS)
    constraints = [word for path in CONSTRAINTS for word in ("--constraint", str(path))]

    def make(*packages: str) -> Path:
        for package in packages:
            assert re.search(f"^{package}==", pinned, re.MULTILINE), f"{package} is not pinned"
        folder = tmp_path_factory.mktemp("venv")
        venv.create(folder, symlinks=True)
        copy_installed(packages, folder)
        python = folder / "bin" / "python"
        # This environment's pip, because installing another takes longer; most modules are never
        # imported, so nothing is compiled.
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-compile"]
        install([*pip, "--quiet", *constraints, *packages], folder)
        return python

    return make


@pytest.fixture(scope="session")
def python(python_with: Callable[..., Path]) -> Path:
    """The interpreter of the environment with all Python clients."""
    here = ("openai", "tokenizers", "jsonschema", "Jinja2", "requests", "regex")  # they need these
    return python_with("litellm", "langchain-openai", "llm", *here)


@pytest.fixture
def node_folder(tmp_path: Path) -> Path:
    """An empty folder for node's packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not on this machine")
    folder = tmp_path / "node"
    folder.mkdir()
    return folder


@pytest.fixture
def node_with(node_folder: Path) -> Callable[..., Path]:
    """Makes a folder with these node packages, which have no dependencies."""

    def make(*packages: str) -> Path:
        install(["npm", "install", "--no-audit", "--no-fund", *packages], node_folder)
        return node_folder

    return make


@pytest.fixture
def node_locked(node_folder: Path) -> Callable[[str], Path]:
    """Makes a folder with node packages and their dependencies from a lock file in `locks/`."""

    def make(lock: str) -> Path:
        shutil.copytree(LOCKS / lock, node_folder, dirs_exist_ok=True)
        install(["npm", "ci", "--no-audit", "--no-fund", "--prefer-offline"], node_folder)
        return node_folder

    return make
