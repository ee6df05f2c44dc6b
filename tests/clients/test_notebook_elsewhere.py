"""The notebook without emojitune installed, configured by two environment variables."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import KEY, PROGRAMS, Server, run

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_the_notebook_runs_with_openai_alone(
    server: Server, python_with: Callable[..., Path], tmp_path: Path
) -> None:
    python = python_with("openai", "ipykernel", "nbclient", "nbformat", "matplotlib")
    notebook = str(ROOT / "emoji_fine_tuning.ipynb")
    environment = {
        **server.environment,
        # Only the kernel of this environment is found.
        "JUPYTER_PATH": str(python.parents[1] / "share" / "jupyter"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "HOME": str(tmp_path),
    }
    command = [str(python), "-W", "ignore", str(PROGRAMS / "run_notebook.py"), notebook, str(ROOT)]
    out = run(command, environment, tmp_path)
    output = json.loads(out.splitlines()[-1])
    text = output["text"]
    assert f"Connected to {server.url}" in text
    assert "569 examples, all of them well formed" in text
    assert "status:           succeeded" in text
    assert "fine-tuned model: ft:gpt-3.5-turbo-0125:" in text
    assert "The job has successfully completed" in text
    assert "349 different labels in 569 examples" in text
    assert output["pictures"] == 1
    assert KEY not in text
