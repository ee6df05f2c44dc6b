"""Other people's clients, unmodified and without emojitune installed, against a server process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from environments import KEY, PROGRAMS, Server, run
from openai import OpenAI

pytestmark = pytest.mark.slow

LABELS = ("(party)", "(devil)")


def test_node(server: Server, training_file: Path, node_with: Callable[..., Path]) -> None:
    folder = node_with("openai@7.57.0")
    # Node looks for packages next to the program.
    shutil.copy(PROGRAMS / "client.mjs", folder)
    command = ["node", "client.mjs", str(training_file)]
    output = json.loads(run(command, server.environment, folder))
    assert output["bytes"] == output["length"] == training_file.stat().st_size
    assert output["status"] == "succeeded"
    assert output["events"][0] == "The job has successfully completed"
    assert output["events"][-1].startswith("Created fine-tuning job")
    assert len(output["events"]) > 5
    assert output["reply"] in LABELS
    assert output["streamed"] in LABELS
    assert output["checkpoints"] == [output["model"]]
    assert output["call"]["name"] == "tell"
    assert output["call"]["mood"] in ("good", "bad")
    assert output["call"]["pieces"] > 1, "the arguments came bit by bit"
    assert output["finish"] == "tool_calls"
    assert output["response"] in LABELS
    assert (output["types"][0], output["types"][-1]) == ("response.created", "response.completed")
    assert "response.output_text.delta" in output["types"]
    assert output["sizes"] == [32, 32]
    assert output["request"].startswith("req_")
    assert (output["error"]["name"], output["error"]["status"]) == ("NotFoundError", 404)
    assert output["error"]["id"].startswith("req_")


@pytest.mark.parametrize("version", [5, 6])
def test_the_ai_sdk(
    server: Server, tuned: str, node_locked: Callable[[str], Path], version: int
) -> None:
    folder = node_locked(f"ai-sdk-{version}")
    shutil.copy(PROGRAMS / "with_ai_sdk.mjs", folder)
    output = json.loads(run(["node", "with_ai_sdk.mjs", tuned], server.environment, folder))
    assert output["first"] in LABELS
    assert output["second"] in LABELS
    [_, [_, earlier, again]] = output["inputs"]
    assert earlier == {"type": "item_reference", "id": output["reply"]}, (
        "the AI SDK sends a reference instead of the item"
    )
    assert again["role"] == "user"
    for loop in (output["responses"], output["chat"]):
        assert loop["reasons"][:2] == ["tool-calls", "tool-calls"]
        assert loop["reasons"][2:] in (["stop"], ["length"]), "three steps, the last one in words"
        assert len(loop["moods"]) == 2
        assert set(loop["moods"]) <= {"good", "bad"}
    *_, last = output["responses"]["inputs"]
    call = "item_reference" if version == 5 else "function_call"
    assert [item.get("type") for item in last[1:]] == [call, "function_call_output"] * 2
    with OpenAI(base_url=server.url, api_key=KEY) as client:
        items = client.responses.input_items.list(output["responses"]["last"], order="asc").data[1:]
    assert [item.type for item in items] == ["function_call", "function_call_output"] * 2
    calls = [json.loads(item.arguments) for item in items if item.type == "function_call"]
    assert calls == [{"mood": mood} for mood in output["responses"]["moods"]]
    results = [item.output for item in items if item.type == "function_call_output"]
    assert results == ['{"noted":1}', '{"noted":2}']


def test_litellm(server: Server, training_file: Path, python: Path, tmp_path: Path) -> None:
    # Use its built-in price list instead of downloading one.
    environment = {**server.environment, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [str(python), str(PROGRAMS / "with_litellm.py"), str(training_file)]
    output = json.loads(run(command, environment, tmp_path))
    assert output["status"] == "succeeded"
    assert output["same"]
    assert output["listed"]
    assert output["filed"]
    assert output["reply"] in LABELS
    assert output["streamed"] in LABELS
    assert output["response"] in LABELS
    assert output["sizes"] == [32, 32]


def test_langchain(server: Server, tuned: str, python: Path, tmp_path: Path) -> None:
    command = [str(python), str(PROGRAMS / "with_langchain.py"), tuned]
    output = json.loads(run(command, server.environment, tmp_path))
    assert output["reply"] in LABELS
    assert output["streamed"] in LABELS
    assert output["tokens"] > 0
    assert set(output["structured"]) == {"json_schema", "function_calling"}
    assert set(output["structured"].values()) <= {"good", "bad"}
    [[tool, mood]] = output["calls"]
    assert tool == "Mood"
    assert mood in ("good", "bad")
    assert output["sizes"] == [32, 32]
    # By default it sends token ids of tiktoken, whose vocabulary is not the local model's.
    assert "Invalid token id in 'input[0]'" in output["refusal"]
    assert "send the text instead" in output["refusal"]


def test_the_llm_command(server: Server, tuned: str, python: Path, tmp_path: Path) -> None:
    llm = python.with_name("llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: tuned\n  model_name: '{tuned}'\n"
        f"  api_base: {server.url}\n  api_key_name: emojitune\n"
    )
    environment = {**server.environment, "LLM_USER_PATH": str(tmp_path)}
    for more in ([], ["--no-stream"]):
        command = [str(llm), "-m", "tuned", "--key", KEY, *more, "What a day"]
        assert run(command, environment, tmp_path).strip() in LABELS


def test_curl(server: Server, training_file: Path, tmp_path: Path) -> None:
    command = ["bash", str(PROGRAMS / "client.sh"), str(training_file)]
    output = run(command, server.environment, tmp_path).splitlines()
    assert output[0] == "The job has successfully completed"
    assert output[1] in LABELS
    assert "data: [DONE]" in output
    assert set(output[-2:]) <= set(LABELS)
