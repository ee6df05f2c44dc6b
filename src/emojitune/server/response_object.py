"""The Response object, in the making and at its end, and the events of its stream."""

from collections.abc import Iterator, Mapping
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
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)
from pydantic import BaseModel

from emojitune.chat.reply import Delta, FinishReason, Usage
from emojitune.errors import EmojituneError
from emojitune.server import models
from emojitune.server.replies import encode, plain
from emojitune.server.response_request import ResponseRequest
from emojitune.store.ids import new_id, now

_EVENTS: tuple[type[BaseModel], ...] = (
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseInProgressEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
)


@dataclass(slots=True)
class Draft:
    """A response as it grows: one message with one part of text."""

    body: ResponseRequest
    id: str = field(default_factory=lambda: new_id("resp_", 48))
    item_id: str = field(default_factory=lambda: new_id("msg_", 48))
    created_at: int = field(default_factory=now)
    text: str = ""
    finish_reason: FinishReason | None = None

    def add(self, delta: Delta) -> None:
        self.text += delta.text
        self.finish_reason = delta.finish_reason or self.finish_reason

    def in_progress(self) -> dict[str, Any]:
        return self._object("in_progress")

    def ended(self, usage: Usage) -> dict[str, Any]:
        """The whole response; incomplete when the reply was cut off."""
        output = {"output": [self.item()], "usage": _usage(usage)}
        if self.finish_reason == "length":
            details = {"incomplete_details": {"reason": "max_output_tokens"}}
            return self._object("incomplete", **output, **details)
        return self._object("completed", **output, completed_at=now())

    def failed(self, error: EmojituneError) -> dict[str, Any]:
        described = {"code": "server_error", "message": error.message}
        return self._object("failed", error=described)

    def item(self) -> dict[str, Any]:
        """The message, once it has ended."""
        status = "incomplete" if self.finish_reason == "length" else "completed"
        return self._item(status, [self.part()])

    def opening(self) -> dict[str, Any]:
        """The message before its first word."""
        return self._item("in_progress", [])

    def part(self) -> dict[str, Any]:
        """The text so far."""
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}

    def _item(self, status: str, content: list[Any]) -> dict[str, Any]:
        head = {"id": self.item_id, "type": "message", "status": status}
        return {**head, "role": "assistant", "content": content}

    def _object(self, status: str, **more: Any) -> dict[str, Any]:
        own = {"id": self.id, "created_at": self.created_at}
        fields = {**_empty(status), **_asked(self.body), **own, **more}
        return plain(Response.model_validate(fields))


def _empty(status: str) -> dict[str, Any]:
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
        "tools": [],
        "top_logprobs": 0,
        "truncation": "disabled",
    }


def _asked(body: ResponseRequest) -> dict[str, Any]:
    """What a response repeats of its request."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": models.full_name(body.model),
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "safety_identifier": body.safety_identifier,
        "store": body.store,
        "temperature": body.temperature,
        "text": {"format": body.text.format.echo(), "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
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


class Events:
    """The frames of one stream: typed, and numbered from 0."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._number = 0

    def opening(self) -> Iterator[bytes]:
        """What comes before the first word."""
        in_progress = self._draft.in_progress()
        yield self._frame("response.created", response=in_progress)
        yield self._frame("response.in_progress", response=in_progress)
        opened = self._draft.opening()
        yield self._frame("response.output_item.added", output_index=0, item=opened)
        yield self._part_frame("response.content_part.added", part=self._draft.part())

    def delta(self, text: str) -> bytes:
        return self._part_frame("response.output_text.delta", delta=text, logprobs=[])

    def written(self) -> Iterator[bytes]:
        """What comes after the last word."""
        draft = self._draft
        yield self._part_frame("response.output_text.done", text=draft.text, logprobs=[])
        yield self._part_frame("response.content_part.done", part=draft.part())
        yield self._frame("response.output_item.done", output_index=0, item=draft.item())

    def failed(self, error: EmojituneError) -> Iterator[bytes]:
        """What comes instead when the model breaks off."""
        described = {"code": error.code or "server_error", "message": error.message}
        yield self._frame("error", **described, param=error.param)
        yield self.end(self._draft.failed(error))

    def end(self, response: Mapping[str, Any]) -> bytes:
        """The last word: the response, named after how it ended."""
        return self._frame(f"response.{response['status']}", response=response)

    def _part_frame(self, kind: str, **fields: Any) -> bytes:
        place = {"item_id": self._draft.item_id, "output_index": 0, "content_index": 0}
        return self._frame(kind, **place, **fields)

    def _frame(self, kind: str, **fields: Any) -> bytes:
        payload = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        event = _BY_TYPE[kind].model_validate(payload)
        return b"event: " + kind.encode() + b"\ndata: " + encode(plain(event)) + b"\n\n"


_BY_TYPE = {get_args(model.model_fields["type"].annotation)[0]: model for model in _EVENTS}
