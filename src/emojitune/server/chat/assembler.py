"""Chat completions assembled from a model's deltas: complete, or as the chunks of a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletion

from emojitune import __version__
from emojitune.errors import EmojituneError
from emojitune.inference.types import Alternative, Delta, FinishReason, ToolCallDelta, Usage
from emojitune.server.chat.request import ChatRequest
from emojitune.server.generation.generate import Ending
from emojitune.server.generation.streaming import event_frame
from emojitune.server.generation.token_logprobs import finite_logprob, token_object
from emojitune.server.http.errors import error_object
from emojitune.server.http.json_responses import as_dict
from emojitune.server.models.resolver import snapshot_name
from emojitune.store.ids import new_id, now


@dataclass(slots=True)
class _ToolCall:
    """A tool call whose arguments are still being generated."""

    name: str
    id: str = field(default_factory=lambda: new_id("call_"))
    arguments: list[str] = field(default_factory=list)

    def function(self) -> dict[str, str]:
        """Return the called function with the arguments so far."""
        return {"name": self.name, "arguments": "".join(self.arguments)}


class ChatAssembler:
    """Assembler of a chat completion: its choices, or the chunks of its stream."""

    def __init__(self, body: ChatRequest) -> None:
        self._body = body
        self._choices = [_ChoiceAssembler(index, body) for index in range(body.n)]
        self._id = new_id("chatcmpl-")
        self._created = now()
        self._chunk_fields = self._common_fields("chat.completion.chunk")
        if body.include_usage:
            self._chunk_fields["usage"] = None  # the last chunk has the numbers

    def start_events(self) -> Iterator[bytes]:
        """Return the first chunk of each choice, the first choice first."""
        for choice in self._choices:
            # A reply that may call tools may turn out to have no text.
            content = None if self._body.tool_use else ""
            opening = {"content": content, "refusal": None, "role": "assistant"}
            yield self._chunk([choice.chunk(opening)])

    def add(self, delta: Delta) -> Iterator[bytes]:
        """Take in a delta of one choice; return its chunks."""
        chunks = self._choices[delta.index].add(delta)
        return (self._chunk([chunk]) for chunk in chunks)

    def finish(self, usage: Usage) -> Ending:
        """Return the completion; a chunk of its usage ends a stream that requests one."""
        return Ending(self._completion(usage), self._closing(usage))

    def fail(self, error: EmojituneError) -> Ending:
        """Return an error object in place of the remaining chunks, and no completion."""
        return Ending(None, [event_frame(error_object(error))])

    def _completion(self, usage: Usage) -> dict[str, Any]:
        completion = ChatCompletion.model_validate(
            {
                "id": self._id,
                **self._common_fields("chat.completion"),
                "choices": [choice.complete() for choice in self._choices],
                "usage": _usage(usage),
                "metadata": self._body.metadata,
            }
        )
        return as_dict(completion)

    def _closing(self, usage: Usage) -> Iterator[bytes]:
        if self._body.include_usage:
            yield self._chunk([], usage=_usage(usage))
        yield b"data: [DONE]\n\n"

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        # There is one for each token, so it is not validated as the completion is: tests compare it
        # with OpenAI's type, in whose order its keys are.
        chunk = {"id": self._id, "choices": choices, **self._chunk_fields}
        return event_frame(chunk if usage is None else {**chunk, "usage": usage})

    def _common_fields(self, kind: str) -> dict[str, Any]:
        return {
            "created": self._created,
            "model": snapshot_name(self._body.model),
            "object": kind,
            "moderation": None,
            "service_tier": "default",
            "system_fingerprint": f"fp_emojitune_{__version__}",
        }


class _ChoiceAssembler:
    """Assembler of one choice."""

    def __init__(self, index: int, body: ChatRequest) -> None:
        self._index = index
        self._with_logprobs = body.logprobs
        self._legacy = bool(body.functions)  # calls have the deprecated form
        # A call that is cut off before its name is not text either.
        self._must_call = bool(body.tool_use and body.tool_use.choice != "auto")
        self._text: list[str] = []
        self._calls: list[_ToolCall] = []
        self._logprobs: list[dict[str, Any]] = []
        self._finish_reason: str | None = None
        self._alternatives: tuple[Alternative, ...] = ()

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """Take in a delta; return the choice of each of its chunks."""
        logprobs = [token_object(logprob) for logprob in delta.logprobs]
        if delta.text:
            self._text.append(delta.text)
        self._logprobs += logprobs
        self._alternatives = delta.alternatives or self._alternatives
        chunks = [self.chunk(self._add_call(call)) for call in delta.tool_calls]
        if delta.text or logprobs:
            shown = _logprobs_object(logprobs) if self._with_logprobs else None
            chunks.append({**self.chunk({"content": delta.text}), "logprobs": shown})
        if delta.finish_reason is not None:
            self._finish_reason = self._api_reason(delta.finish_reason)
            chunks.append(
                {**self.chunk({}, self._finish_reason), **_alternatives(delta.alternatives)}
            )
        return chunks

    def chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        """Return the choice of a chunk with this delta."""
        return {
            "delta": delta,
            "index": self._index,
            "finish_reason": finish_reason,
            "logprobs": None,
        }

    def complete(self) -> dict[str, Any]:
        """Return the choice of the completion."""
        message = {
            "role": "assistant",
            "content": "".join(self._text) or (None if self._calls or self._must_call else ""),
            "refusal": None,
            "annotations": [],
            **self._call_fields(),
        }
        shown = _logprobs_object(None if self._calls and not self._text else self._logprobs)
        return {
            "index": self._index,
            "message": message,
            "finish_reason": self._finish_reason,
            "logprobs": shown if self._with_logprobs else None,
            **_alternatives(self._alternatives),
        }

    def _api_reason(self, reason: FinishReason) -> str:
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def _add_call(self, delta: ToolCallDelta) -> dict[str, Any]:
        """Return the delta of a call: its id and name come first, then its arguments."""
        function: dict[str, Any] = {"arguments": delta.arguments}
        call: dict[str, Any] = {"index": delta.index, "function": function}
        if delta.name is not None:
            tool_call = _ToolCall(delta.name)
            self._calls.append(tool_call)
            function["name"] = delta.name
            call = {
                "index": delta.index,
                "id": tool_call.id,
                "function": function,
                "type": "function",
            }
        self._calls[delta.index].arguments.append(delta.arguments)
        return {"function_call": function} if self._legacy else {"tool_calls": [call]}

    def _call_fields(self) -> dict[str, Any]:
        if not self._calls:
            return {}
        if self._legacy:
            return {"function_call": self._calls[0].function()}
        calls = [
            {"id": call.id, "type": "function", "function": call.function()} for call in self._calls
        ]
        return {"tool_calls": calls}


def _logprobs_object(tokens: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {"content": tokens, "refusal": None}


def _alternatives(alternatives: tuple[Alternative, ...]) -> dict[str, Any]:
    """The most likely labels, on a choice of a request for them: an extension of the API."""
    if not alternatives:
        return {}
    listed = [
        {
            "content": alternative.content,
            "logprob": finite_logprob(alternative.logprob),
            **({} if alternative.probability is None else {"probability": alternative.probability}),
        }
        for alternative in alternatives
    ]
    return {"alternatives": listed}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
