"""Null means left out, at any depth of every body and of every line of a batch."""

import json
import time
from typing import Any

import httpx2
import pytest
from openai import OpenAI

MODEL = "gpt-3.5-turbo"
CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "(party)",
    "operation": "eq",
}
MESSAGE = {
    "role": "user",
    "content": [{"type": "text", "text": "hi", "refusal": None}],
    "name": None,
}
PAIRS = {"kept": "b", "left out": None}
CHAT: dict[str, Any] = {
    "model": MODEL,
    "messages": [{**MESSAGE, "tool_calls": None, "audio": None}],
    "metadata": PAIRS,
    "logit_bias": {"17": 1, "18": None},
    "tools": [{"type": "function", "custom": None, "function": {"name": "f", "strict": None}}],
    "tool_choice": {"type": "auto", "function": None, "allowed_tools": None},
    "response_format": {"type": "text", "json_schema": None},
    "stop": None,
    "stream_options": None,
    "prompt_cache_options": {"mode": None, "ttl": None},
}
RESPONSE: dict[str, Any] = {
    "model": MODEL,
    "input": [{"type": None, "id": None, "role": "user", "content": "hi", "status": None}],
    "metadata": PAIRS,
    "text": {"format": {"type": "text", "name": None, "schema": None, "strict": None}},
    "reasoning": {"effort": None, "summary": None, "generate_summary": None, "context": None},
    "tools": [{"type": "function", "name": "f", "parameters": None, "async": None}],
    "tool_choice": {"type": "function", "name": "f", "mode": None, "tools": None},
}


@pytest.mark.parametrize(("path", "body"), [("/chat/completions", CHAT), ("/responses", RESPONSE)])
def test_null_means_left_out(http: httpx2.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.post(path, json={**body, "store": True})
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"] == {"kept": "b"}


def test_a_graders_parts(http: httpx2.Client) -> None:
    parts = {"a": {**CHECK, "evaluation_metric": None}, "b": None}
    grader = {"type": "multi", "name": "both", "graders": parts, "calculate_output": "a"}
    body = {"grader": grader, "model_sample": "(party)", "item": None}
    answer = http.post("/fine_tuning/alpha/graders/run", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["reward"] == 1


def test_a_jobs_metadata(http: httpx2.Client, client: OpenAI) -> None:
    file = client.files.create(file=b"{}\n", purpose="fine-tune")
    job = http.post("/fine_tuning/jobs", json={
        "model": MODEL, "training_file": file.id, "metadata": PAIRS,
        "hyperparameters": {"n_epochs": None},
    })  # fmt: skip
    assert job.status_code == 200, job.text
    assert job.json()["metadata"] == {"kept": "b"}


def test_the_null_that_removes_metadata_still_does(http: httpx2.Client) -> None:
    body = {"model": MODEL, "messages": [MESSAGE], "store": True, "metadata": {"a": "b"}}
    made = http.post("/chat/completions", json=body).json()
    path = f"/chat/completions/{made['id']}"
    assert http.post(path, json={"metadata": PAIRS, "x": None}).json()["metadata"] == {"kept": "b"}
    assert http.post(path, json={"metadata": None}).json()["metadata"] is None
    assert http.post(path, json={}).json()["error"]["code"] == "missing_required_parameter"


def test_a_line_of_a_batch(http: httpx2.Client, client: OpenAI) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    file = client.files.create(file=json.dumps({**line, "id": None}).encode(), purpose="batch")
    made = http.post("/batches", json={
        "input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": PAIRS, "output_expires_after": None,
    })  # fmt: skip
    assert made.status_code == 200, made.text
    deadline = time.monotonic() + 20
    while (batch := client.batches.retrieve(made.json()["id"])).status != "completed":
        assert time.monotonic() < deadline, batch.status
        time.sleep(0.02)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == 1, client.files.content(batch.error_file_id or "").text
    assert batch.metadata == {"kept": "b"}


def test_a_named_function_without_its_name(http: httpx2.Client) -> None:
    body = {"functions": [{"name": "f"}], "function_call": {"name": None}}
    answer = http.post("/chat/completions", json={"model": MODEL, "messages": [MESSAGE], **body})
    assert answer.json()["error"]["param"] == "function_call.name"
