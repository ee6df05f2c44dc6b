"""Other people's clients, unmodified, where there is no emojitune, against a server process."""

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
    # Node looks for packages beside the program.
    shutil.copy(PROGRAMS / "client.mjs", folder)
    command = ["node", "client.mjs", str(training_file)]
    told = json.loads(run(command, server.environment, folder))
    assert told["bytes"] == told["length"] == training_file.stat().st_size
    assert told["status"] == "succeeded"
    assert told["events"][0] == "The job has successfully completed"
    assert told["events"][-1].startswith("Created fine-tuning job")
    assert len(told["events"]) > 5
    assert told["reply"] in LABELS
    assert told["streamed"] in LABELS
    assert told["checkpoints"] == [told["model"]]
    assert told["call"]["name"] == "tell"
    assert told["call"]["mood"] in ("good", "bad")
    assert told["call"]["pieces"] > 1, "the arguments came bit by bit"
    assert told["finish"] == "tool_calls"
    assert told["response"] in LABELS
    assert (told["types"][0], told["types"][-1]) == ("response.created", "response.completed")
    assert "response.output_text.delta" in told["types"]
    assert told["sizes"] == [32, 32]
    assert told["request"].startswith("req_")
    assert (told["error"]["name"], told["error"]["status"]) == ("NotFoundError", 404)
    assert told["error"]["id"].startswith("req_")


@pytest.mark.parametrize("version", [5, 6])
def test_the_ai_sdk(
    server: Server, tuned: str, node_locked: Callable[[str], Path], version: int
) -> None:
    folder = node_locked(f"ai-sdk-{version}")
    shutil.copy(PROGRAMS / "with_ai_sdk.mjs", folder)
    told = json.loads(run(["node", "with_ai_sdk.mjs", tuned], server.environment, folder))
    assert told["first"] in LABELS
    assert told["second"] in LABELS
    [_, [_, earlier, again]] = told["inputs"]
    assert earlier == {"type": "item_reference", "id": told["reply"]}, "what it sends instead"
    assert again["role"] == "user"
    for loop in (told["responses"], told["chat"]):
        assert loop["reasons"][:2] == ["tool-calls", "tool-calls"]
        assert loop["reasons"][2:] in (["stop"], ["length"]), "three steps, the last one in words"
        assert len(loop["moods"]) == 2
        assert set(loop["moods"]) <= {"good", "bad"}
    *_, last = told["responses"]["inputs"]
    call = "item_reference" if version == 5 else "function_call"
    assert [item.get("type") for item in last[1:]] == [call, "function_call_output"] * 2
    with OpenAI(base_url=server.url, api_key=KEY) as client:
        items = client.responses.input_items.list(told["responses"]["last"], order="asc").data[1:]
    assert [item.type for item in items] == ["function_call", "function_call_output"] * 2
    calls = [json.loads(item.arguments) for item in items if item.type == "function_call"]
    assert calls == [{"mood": mood} for mood in told["responses"]["moods"]]
    results = [item.output for item in items if item.type == "function_call_output"]
    assert results == ['{"noted":1}', '{"noted":2}']


def test_litellm(server: Server, training_file: Path, python: Path, tmp_path: Path) -> None:
    # Its own price list of models, instead of one from the network.
    environment = {**server.environment, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [str(python), str(PROGRAMS / "with_litellm.py"), str(training_file)]
    told = json.loads(run(command, environment, tmp_path))
    assert told["status"] == "succeeded"
    assert told["same"]
    assert told["listed"]
    assert told["filed"]
    assert told["reply"] in LABELS
    assert told["streamed"] in LABELS
    assert told["response"] in LABELS
    assert told["sizes"] == [32, 32]


def test_langchain(server: Server, tuned: str, python: Path, tmp_path: Path) -> None:
    command = [str(python), str(PROGRAMS / "with_langchain.py"), tuned]
    told = json.loads(run(command, server.environment, tmp_path))
    assert told["reply"] in LABELS
    assert told["streamed"] in LABELS
    assert told["tokens"] > 0
    assert set(told["structured"]) == {"json_schema", "function_calling"}
    assert set(told["structured"].values()) <= {"good", "bad"}
    [[tool, mood]] = told["calls"]
    assert tool == "Mood"
    assert mood in ("good", "bad")
    assert told["sizes"] == [32, 32]
    # By default it sends ids of tiktoken's vocabularies, which are not the local model's.
    assert "Invalid token id in 'input[0]'" in told["refusal"]
    assert "send the text instead" in told["refusal"]


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
    told = run(command, server.environment, tmp_path).splitlines()
    assert told[0] == "The job has successfully completed"
    assert told[1] in LABELS
    assert "data: [DONE]" in told
    assert set(told[-2:]) <= set(LABELS)
