"""What a chat model says as OpenAI's objects: a completion, or the chunks of a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails

from emojitune import __version__
from emojitune.inference.types import Alternative, Delta, ToolCallDelta, Usage
from emojitune.server.chat.request import ChatRequest
from emojitune.server.generation.token_logprobs import finite_logprob, token_object
from emojitune.store.ids import new_id, now


@dataclass(frozen=True, slots=True)
class CompletionHeader:
    """What a completion and all of its chunks have in common."""

    model: str
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=now)

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": f"fp_emojitune_{__version__}",
            "moderation": None,
        }


@dataclass(slots=True)
class _Call:
    """A tool call as it grows."""

    name: str
    id: str = field(default_factory=lambda: new_id("call_"))
    arguments: str = ""


class ChatAssembler:
    """The choices of one completion as they grow; each piece gives the chunks of a stream."""

    def __init__(self, head: CompletionHeader, body: ChatRequest) -> None:
        self._head = head
        self._body = body
        self._choices = [_ChoiceAssembler(index, body) for index in range(body.n)]
        self._fields = head.fields("chat.completion.chunk")
        if body.include_usage:
            self._fields["usage"] = None  # in every chunk but the last

    def opening(self) -> Iterator[ChatCompletionChunk]:
        """The first chunk of each choice, the first choice first."""
        for choice in self._choices:
            # Where a reply may be a call, text or none is not known yet.
            content = None if self._body.tool_use else ""
            opening = {"role": "assistant", "content": content, "refusal": None}
            yield self._chunk([_chunk_choice(choice.index, opening)])

    def add(self, delta: Delta) -> Iterator[ChatCompletionChunk]:
        """Take a piece; its chunks."""
        return (self._chunk([part]) for part in self._choices[delta.index].add(delta))

    def end(self, usage: Usage) -> Iterator[ChatCompletionChunk]:
        """The chunk behind the last, if it is asked for."""
        if self._body.include_usage:
            yield self._chunk([], usage=_usage(usage))

    def completion(self, usage: Usage) -> ChatCompletion:
        """The whole, once all is said."""
        return ChatCompletion.model_validate(
            {
                **self._head.fields("chat.completion"),
                "choices": [choice.fields() for choice in self._choices],
                "usage": _usage(usage),
                "metadata": self._body.metadata,
            }
        )

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> ChatCompletionChunk:
        return ChatCompletionChunk.model_validate({**self._fields, "choices": choices, **more})


class _ChoiceAssembler:
    """One reply as it grows."""

    def __init__(self, index: int, body: ChatRequest) -> None:
        self.index = index
        self._with_logprobs = body.logprobs
        self._legacy = bool(body.functions)  # calls are told in the deprecated form
        # One that was cut off before its name is no text either.
        self._must_call = bool(body.tool_use and body.tool_use.choice != "auto")
        self._text = ""
        self._calls: list[_Call] = []
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
            self._calls.append(_Call(piece.name))
            function["name"] = piece.name
            call |= {"id": self._calls[piece.index].id, "type": "function"}
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
    return {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


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


def _usage(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=0),
    )
