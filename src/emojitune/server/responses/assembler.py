"""The Response object, in the making and at its end, and the events of its stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)
from pydantic import BaseModel

from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, Usage
from emojitune.server.http.json_responses import as_dict, encode_json
from emojitune.server.models.resolver import snapshot_name
from emojitune.server.responses.output import Event, OutputItems
from emojitune.server.responses.request import ResponseRequest
from emojitune.store.ids import new_id, now

_EVENTS: tuple[type[BaseModel], ...] = (
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)


@dataclass(slots=True)
class ResponseAssembler:
    """A response as it grows; each step gives the events of a stream."""

    body: ResponseRequest
    id: str = field(default_factory=lambda: new_id("resp_", 48))
    created_at: int = field(default_factory=now)
    _output: OutputItems = field(default_factory=OutputItems)

    def opening(self) -> list[Event]:
        """What comes before the first word."""
        in_progress = {"response": self._object("in_progress")}
        return [("response.created", in_progress), ("response.in_progress", in_progress)]

    def add(self, delta: Delta) -> list[Event]:
        """Take a piece; its events."""
        return list(self._output.add(delta))

    def end(self) -> list[Event]:
        """What comes after the last word."""
        return list(self._output.end())

    def ended(self, usage: Usage) -> dict[str, Any]:
        """The whole response, after its end; incomplete when the reply was cut off."""
        output = {"output": self._output.items(), "usage": _usage(usage)}
        if self._output.cut_off:
            details = {"incomplete_details": {"reason": "max_output_tokens"}}
            return self._object("incomplete", **output, **details)
        return self._object("completed", **output, completed_at=now())

    def failed(self, error: EmojituneError) -> dict[str, Any]:
        described = {"code": "server_error", "message": error.message}
        return self._object("failed", error=described)

    def _object(self, status: str, **more: Any) -> dict[str, Any]:
        own = {"id": self.id, "created_at": self.created_at}
        fields = {**_constant_fields(status), **_request_fields(self.body), **own, **more}
        return as_dict(Response.model_validate(fields))


def _constant_fields(status: str) -> dict[str, Any]:
    """What a response has whatever was asked. `usage` is never null: it comes with the end."""
    return {
        "object": "response",
        "status": status,
        "background": False,
        "completed_at": None,
        "conversation": None,
        "error": None,
        "incomplete_details": None,
        "moderation": None,
        "output": [],
        "prompt": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "truncation": "disabled",
    }


def _request_fields(body: ResponseRequest) -> dict[str, Any]:
    """What a response repeats of its request."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": snapshot_name(body.model),
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "safety_identifier": body.safety_identifier,
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": body.text.format.echo(), "verbosity": "medium"},
        "tool_choice": body.tool_choice.echo() if body.tool_choice else "auto",
        "tools": [tool.echo() for tool in body.tools],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        **({} if body.user is None else {"user": body.user}),  # never null
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def failure_events(error: EmojituneError, response: Mapping[str, Any]) -> list[Event]:
    """What comes instead of an end when the model breaks off."""
    code = error.code or "server_error"
    described = {"code": code, "message": error.message, "param": error.param}
    return [("error", described), final_event(response)]


def final_event(response: Mapping[str, Any]) -> Event:
    """The response, named after how it ended."""
    return f"response.{response['status']}", {"response": response}


class Frames:
    """The frames of one stream: typed, and numbered from 0."""

    def __init__(self) -> None:
        self._number = 0

    def frame(self, event: Event) -> bytes:
        kind, fields = event
        payload = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        shown = as_dict(_BY_TYPE[kind].model_validate(payload))
        return b"event: " + kind.encode() + b"\ndata: " + encode_json(shown) + b"\n\n"


_BY_TYPE = {get_args(model.model_fields["type"].annotation)[0]: model for model in _EVENTS}
