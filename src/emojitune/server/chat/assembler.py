"""Chat completions assembled from a model's deltas: complete, or as the chunks of a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletion

from emojitune import __version__
from emojitune.errors import EmojituneError
from emojitune.inference.types import Alternative, Delta, ToolCallDelta, Usage
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
    """A tool call as it grows."""

    name: str
    id: str = field(default_factory=lambda: new_id("call_"))
    arguments: str = ""


class ChatAssembler:
    """Assembles the choices of one chat completion; an Assembler of server/generation."""

    def __init__(self, body: ChatRequest) -> None:
        self._body = body
        self._choices = [_ChoiceAssembler(index, body) for index in range(body.n)]
        self._id = new_id("chatcmpl-")
        self._created = now()
        self._chunk_fields = self._common_fields("chat.completion.chunk")
        if body.include_usage:
            self._chunk_fields["usage"] = None  # the last chunk has the numbers

    def opening(self) -> Iterator[bytes]:
        """Return the first chunk of each choice, the first choice first."""
        for choice in self._choices:
            # Where a reply may be a call, text or none is not known yet.
            content = None if self._body.tool_use else ""
            opening = {"content": content, "refusal": None, "role": "assistant"}
            yield self._chunk([_chunk_choice(choice.index, opening)])

    def add(self, delta: Delta) -> Iterator[bytes]:
        """Take in a delta of one choice; return its chunks."""
        return (self._chunk([part]) for part in self._choices[delta.index].add(delta))

    def finish(self, usage: Usage) -> Ending:
        """Return the completion, and the chunk of its usage if that is requested."""
        return Ending(self._completion(usage), self._closing(usage))

    def fail(self, error: EmojituneError) -> Ending:
        """Return an error object: what was said until then is lost."""
        return Ending(None, [event_frame(error_object(error))])

    def _completion(self, usage: Usage) -> dict[str, Any]:
        completion = ChatCompletion.model_validate(
            {
                "id": self._id,
                **self._common_fields("chat.completion"),
                "choices": [choice.fields() for choice in self._choices],
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
        # Not validated as the completion is, since there is one for each token: tests compare it
        # with OpenAI's type, whose order of keys it has.
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
    """One reply as it grows."""

    def __init__(self, index: int, body: ChatRequest) -> None:
        self.index = index
        self._with_logprobs = body.logprobs
        self._legacy = bool(body.functions)  # calls are told in the deprecated form
        # One that was cut off before its name is no text either.
        self._must_call = bool(body.tool_use and body.tool_use.choice != "auto")
        self._text = ""
        self._calls: list[_ToolCall] = []
        self._logprobs: list[dict[str, Any]] = []
        self._finish_reason: str | None = None
        self._alternatives: tuple[Alternative, ...] = ()

    def add(self, delta: Delta) -> list[dict[str, Any]]:
        """Take a piece; the choices of its chunks."""
        logprobs = [token_object(logprob) for logprob in delta.logprobs]
        self._text += delta.text
        self._logprobs += logprobs
        self._alternatives = delta.alternatives or self._alternatives
        chunks = [self._chunk(self._add_call(piece)) for piece in delta.tool_calls]
        if delta.text or logprobs:
            told = _logprobs_object(logprobs) if self._with_logprobs else None
            chunks.append({**self._chunk({"content": delta.text}), "logprobs": told})
        if delta.finish_reason is not None:
            self._finish_reason = self._named(delta.finish_reason)
            chunks.append(
                {**self._chunk({}, self._finish_reason), **_alternatives(delta.alternatives)}
            )
        return chunks

    def fields(self) -> dict[str, Any]:
        """The choice, whole."""
        message = {
            "role": "assistant",
            "content": self._text or (None if self._calls or self._must_call else ""),
            "refusal": None,
            "annotations": [],
            **self._calls_fields(),
        }
        told = _logprobs_object(None if self._calls and not self._text else self._logprobs)
        return {
            "index": self.index,
            "message": message,
            "finish_reason": self._finish_reason,
            "logprobs": told if self._with_logprobs else None,
            **_alternatives(self._alternatives),
        }

    def _named(self, reason: str) -> str:
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def _add_call(self, piece: ToolCallDelta) -> dict[str, Any]:
        """The delta of a call: its id and name first, then its arguments piece by piece."""
        function: dict[str, Any] = {"arguments": piece.arguments}
        call: dict[str, Any] = {"index": piece.index, "function": function}
        if piece.name is not None:
            made = _ToolCall(piece.name)
            self._calls.append(made)
            function["name"] = piece.name
            call = {"index": piece.index, "id": made.id, "function": function, "type": "function"}
        self._calls[piece.index].arguments += piece.arguments
        return {"function_call": function} if self._legacy else {"tool_calls": [call]}

    def _calls_fields(self) -> dict[str, Any]:
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in self._calls
        ]
        if not calls:
            return {}
        return {"function_call": calls[0]["function"]} if self._legacy else {"tool_calls": calls}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return _chunk_choice(self.index, delta, finish_reason)


def _chunk_choice(
    index: int, delta: dict[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    return {"delta": delta, "index": index, "finish_reason": finish_reason, "logprobs": None}


def _logprobs_object(tokens: list[dict[str, Any]] | None) -> dict[str, Any]:
    return {"content": tokens, "refusal": None}


def _alternatives(alternatives: tuple[Alternative, ...]) -> dict[str, Any]:
    """Ours: the likeliest labels, on a choice that was asked for them."""
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
