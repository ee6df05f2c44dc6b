"""The schemas of replies can fail: each of these replies has one mistake, or none."""

from copy import deepcopy
from typing import Any

import httpx2
import jsonschema
import pytest
import schemas
from schema_middleware import SchemaCheckMiddleware, json_objects

ERROR = {"error": {"message": "m", "type": "t", "param": None, "code": None}}
MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "us", "shutdown_date": None}
JOB: dict[str, Any] = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "created_at": 1,
    "error": None,
    "fine_tuned_model": "ft:base:org::12345678",
    "finished_at": None,
    "hyperparameters": {"n_epochs": "auto", "batch_size": 1, "learning_rate_multiplier": 1.8},
    "model": "m",
    "organization_id": "o",
    "result_files": [],
    "status": "running",
    "trained_tokens": None,
    "training_file": "file-1",
    "validation_file": None,
    "seed": 1,
}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "message": {"role": "assistant", "content": "(party)", "refusal": None},
    "logprobs": None,
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [CHOICE],
    "usage": USAGE,
}
PAGE = {"object": "list", "data": [MODEL]}


def test_every_schema_is_valid() -> None:
    tables = (schemas.OBJECTS, schemas.LISTS, schemas.PLAIN, schemas.RESPONSE_EVENTS)
    for schema in (schemas.ERROR, schemas.DELETED, *(s for t in tables for s in t.values())):
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("reply", "path"),
    [
        (ERROR, "/v1/x"),
        (MODEL, "/v1/models/m"),
        (JOB, "/v1/fine_tuning/jobs/x"),
        ({**JOB, "served_by": "another key"}, "/v1/fine_tuning/jobs/x"),
        (COMPLETION, "/v1/chat/completions"),
        (PAGE, "/v1/models"),
        ({"id": "m", "object": "model", "deleted": True}, "/v1/models/m"),
    ],
)
def test_valid_replies_pass(reply: dict[str, Any], path: str) -> None:
    schemas.check(reply, path)


@pytest.mark.parametrize(
    ("reply", "place", "value"),
    [
        (ERROR, "error.code", ...),
        (ERROR, "error.more", 1),
        (MODEL, "created", 1.5),
        (MODEL, "created", 1.0),
        (MODEL, "created", "1"),
        (MODEL, "owned_by", None),
        (MODEL, "shutdown_date", "tomorrow"),
        (JOB, "error", {}),
        (JOB, "error", {"code": None, "message": None, "param": None}),
        (JOB, "hyperparameters", None),
        (JOB, "hyperparameters.n_epochs", 0),
        (JOB, "organization_id", None),
        (JOB, "seed", ...),
        (JOB, "finished_at", ...),
        (JOB, "finished_at", 1.0),
        (JOB, "status", "done"),
        (JOB, "fine_tuned_model", "ft:base:org:12345678"),
        (COMPLETION, "choices", []),
        (COMPLETION, "choices", [{**CHOICE, "finish_reason": None}]),
        (COMPLETION, "choices", [{k: v for k, v in CHOICE.items() if k != "logprobs"}]),
        (COMPLETION, "choices", [{**CHOICE, "logprobs": {"content": None}}]),
        (COMPLETION, "choices", [{**CHOICE, "message": {**CHOICE["message"], "tool_calls": []}}]),
        (COMPLETION, "usage.prompt_tokens", -1),
        (COMPLETION, "usage.prompt_tokens", True),
        (COMPLETION, "system_fingerprint", None),
        (PAGE, "data", [JOB]),
    ],
)
def test_invalid_replies_do_not_pass(reply: dict[str, Any], place: str, value: Any) -> None:
    wrong = deepcopy(reply)
    *way, last = place.split(".")
    inner = wrong
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(AssertionError):
        schemas.check(wrong, "/v1/models")


def test_a_reply_without_a_schema_is_reported() -> None:
    with pytest.raises(LookupError, match="/v1/odd"):
        schemas.check({"object": "odd"}, "/v1/odd")


@pytest.mark.parametrize(
    "content", [b"id: 1\n\n", b"retry: 5\n\n", b"data: {\n\n", b"data: NaN\n\n", b"{}\n\n"]
)
def test_streams_consist_of_frames_of_json(content: bytes) -> None:
    with pytest.raises((AssertionError, ValueError)):
        list(json_objects("text/event-stream", content))


def test_replies_to_every_client_are_checked(http: httpx2.Client, monkeypatch) -> None:
    monkeypatch.setitem(schemas.LISTS, "/models", schemas.list_of(schemas.JOB))
    http.get("/models")
    violations = list(SchemaCheckMiddleware.violations)
    SchemaCheckMiddleware.violations.clear()
    assert len(violations) == 1
    assert "the reply to /v1/models" in violations[0]
