"""Responses assembled from a model's deltas: complete, or as the events of a stream."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from openai.types.responses import Response

from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, Usage
from emojitune.server.generation.generate import Ending
from emojitune.server.generation.streaming import event_frame
from emojitune.server.http.json_responses import as_dict
from emojitune.server.models.resolver import snapshot_name
from emojitune.server.responses.output import Event, OutputItems
from emojitune.server.responses.request import ResponseRequest
from emojitune.store.ids import new_id, now


class ResponseAssembler:
    """Assembler of a response: the object, or the events of its stream."""

    def __init__(self, body: ResponseRequest) -> None:
        self._body = body
        self._id = new_id("resp_", 48)
        self._created_at = now()
        self._output = OutputItems()
        self._event_number = 0

    def start_events(self) -> Iterator[bytes]:
        """Return the events of the response before it has any output."""
        in_progress = {"response": self._object("in_progress")}
        return self._frames(
            [("response.created", in_progress), ("response.in_progress", in_progress)]
        )

    def add(self, delta: Delta) -> Iterator[bytes]:
        """Take in a delta; return the events of the items that it changes."""
        # A list: the items grow at once, whether or not the frames are iterated over.
        return self._frames(list(self._output.add(delta)))

    def finish(self, usage: Usage) -> Ending:
        """Return the response: incomplete if the reply was cut off."""
        events = list(self._output.end())
        output = {"output": self._output.items(), "usage": _usage(usage)}
        if self._output.cut_off:
            details = {"incomplete_details": {"reason": "max_output_tokens"}}
            response = self._object("incomplete", **output, **details)
        else:
            response = self._object("completed", **output, completed_at=now())
        return Ending(response, self._frames([*events, _final_event(response)]))

    def fail(self, error: EmojituneError) -> Ending:
        """Return the failed response, without output; an event of the error precedes it."""
        described = {"code": "server_error", "message": error.message}
        response = self._object("failed", error=described)
        return Ending(response, self._frames([_error_event(error), _final_event(response)]))

    def _object(self, status: str, **more: Any) -> dict[str, Any]:
        identity = {"id": self._id, "created_at": self._created_at}
        fields = {**_constant_fields(status), **_request_fields(self._body), **identity, **more}
        return as_dict(Response.model_validate(fields))

    def _frames(self, events: Iterable[Event]) -> Iterator[bytes]:
        return map(self._frame, events)

    def _frame(self, event: Event) -> bytes:
        # There is one for each token, so it is not validated as the response is: tests compare it
        # with OpenAI's type, whose keys are in alphabetical order.
        kind, fields = event
        payload = {"type": kind, "sequence_number": self._event_number, **fields}
        self._event_number += 1
        return event_frame(dict(sorted(payload.items())), kind)


def _constant_fields(status: str) -> dict[str, Any]:
    """Fields that do not depend on the request. `usage` is never null: it is added at the end."""
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
    """Fields that repeat the request."""
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


def _error_event(error: EmojituneError) -> Event:
    code = error.code or "server_error"
    return "error", {"code": code, "message": error.message, "param": error.param}


def _final_event(response: Mapping[str, Any]) -> Event:
    """The response, in an event that is named after its status."""
    return f"response.{response['status']}", {"response": response}
