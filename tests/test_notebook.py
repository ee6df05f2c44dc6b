"""The notebook: its fixed parts, and a run from top to bottom against a fake API."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fake_api import MODEL, FakeApi
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "emoji_fine_tuning.ipynb"

# Jupyter's own libraries warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore")


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the notebook in a fresh kernel and return everything that was printed."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = read()
    client = NotebookClient(
        notebook, timeout=60, allow_stdin=False, resources={"metadata": {"path": str(ROOT)}}
    )
    client.execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs)


def test_it_is_a_valid_notebook() -> None:
    nbformat.validate(read())


def test_the_first_code_cell_holds_the_parameters() -> None:
    assert code_cells(read())[0].source == (
        'TRAINING_FILE_PATH = "data/emoji_ft_train.jsonl"\n'
        'BASE_MODEL = "gpt-3.5-turbo"\n'
        'MODEL_SUFFIX = "emoji-v1"\n'
        "N_EPOCHS = 3"
    )


def test_what_it_costs_is_said_before_the_job_is_created() -> None:
    sources = [cell.source for cell in read().cells]
    [cost] = [number for number, source in enumerate(sources) if "about $" in source]
    [dates] = [number for number, source in enumerate(sources) if "2027-01-06" in source]
    [create] = [number for number, source in enumerate(sources) if "jobs.create(" in source]
    assert dates < cost < create


def test_emojitune_is_imported_for_the_local_server_only() -> None:
    for cell in code_cells(read()):
        for line in cell.source.splitlines():
            assert "emojitune" not in line or line.startswith("    from emojitune.workflow")


def test_it_runs_against_any_server(fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_api.polls_to_finish = 1
    # Values with white space, as people set them; no proxy is used for this machine.
    environment = {"OPENAI_BASE_URL": f" {fake_api.url}\n", "OPENAI_API_KEY": " sk-secret\n"}
    environment |= {"OPENAI_ORG_ID": " ", "OPENAI_PROJECT_ID": "", "no_proxy": ""}
    environment |= dict.fromkeys(("http_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    printed = run(environment, monkeypatch)
    assert "569 examples, all of them well formed" in printed
    assert "349 different labels in 569 examples" in printed
    assert f"fine-tuned model: {MODEL}" in printed
    assert "sk-secret" not in printed
    output = [line for line in printed.splitlines() if "[info]" in line]
    assert "Created fine-tuning job" in output[0]
    assert "The job is over" in output[-1]
    assert fake_api.created["hyperparameters"] == {"n_epochs": 3}
    assert fake_api.created["suffix"] == "emoji-v1"
    assert "is served by 127.0.0.1" in printed
    [milestones, fifty] = printed.split("Created fine-tuning job")[1:]
    assert "Step" not in milestones
    assert "Step" in fifty
    asked = [chat["messages"][-1]["content"] for chat in fake_api.chats]
    assert len(asked) == 5
    assert asked[0] == "What the hell is going on?"
    assert {chat["max_tokens"] for chat in fake_api.chats} == {50}


def test_without_a_key_it_uses_the_local_server(
    fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_api.polls_to_finish = 1
    home = tmp_path / "home"
    home.mkdir()
    (home / "server.json").write_text(json.dumps({"url": fake_api.url, "pid": 1}))
    (home / "api_key").write_text("key-of-home")
    printed = run({"EMOJITUNE_HOME": str(home)}, monkeypatch)
    assert f"Connected to {fake_api.url}" in printed


@pytest.mark.parametrize("key", ["schlüssel", "sk-“mine”", "a\nb"])
def test_a_key_that_no_client_can_send_stops_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("no_proxy", "")  # the cell sets it
    [connect] = [cell for cell in code_cells(read()) if "getpass" in cell.source]
    with pytest.raises(ValueError, match="copy it again"):
        exec(connect.source, {})


def test_a_failed_job_stops_it_with_the_reason(
    fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_api.polls_to_finish = 1
    fake_api.final_status = "failed"
    fake_api.error = {"code": "server_error", "message": "It broke.", "param": None}
    environment = {"OPENAI_BASE_URL": fake_api.url, "OPENAI_API_KEY": "k"}
    with pytest.raises(CellExecutionError, match=r"The job failed: It broke\."):
        run(environment, monkeypatch)
    assert fake_api.chats == []
