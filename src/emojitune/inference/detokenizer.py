"""Tokens of a reply to text, log-probabilities and tool calls, emitted as soon as they are certain.

Linear in the reply: a token is decoded with the few before it, and text is read once.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp
from typing import Literal

from tokenizers.decoders import DecodeStream

from emojitune.dataset.tool_format import CALL_BEGIN, SEPARATOR
from emojitune.inference.decoding.label_search import ScoredLabel
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.decoding.sampling import TopLogprobs
from emojitune.inference.tool_calls import ToolCallParser, split_at_call
from emojitune.inference.types import (
    Alternative,
    Delta,
    FinishReason,
    InferenceRequest,
    Listener,
    TokenLogprob,
)
from emojitune.models.renderer import Renderer

_REPLACEMENT = "\ufffd"  # decoded from bytes that are no character, or none yet


class Detokenizer:
    """The sink of a request's tokens: all its replies, from tokens to deltas."""

    def __init__(self, renderer: Renderer, request: InferenceRequest, listener: Listener) -> None:
        self._renderer = renderer
        self._replies = [
            _ReplyStream(
                index, TextStream(renderer), request.sampling.stop, request.tools, listener
            )
            for index in range(request.sampling.n)
        ]

    @property
    def completion_tokens(self) -> int:
        return sum(reply.tokens for reply in self._replies)

    def rank(self, ranking: Sequence[ScoredLabel], log_total: float | None) -> None:
        """Keep the best labels of a set, which the last delta of each reply reports.

        `log_total` is the score of the entire set; None where it is not known.
        """
        alternatives = tuple(
            Alternative(
                self._renderer.decode(scored.tokens),
                scored.log_probability,
                None if log_total is None else exp(scored.score - log_total),
            )
            for scored in ranking
        )
        for reply in self._replies:
            reply.alternatives = alternatives

    def token(self, index: int, token: int, logprobs: TopLogprobs | None) -> bool:
        """Take the next token of a reply; False once a stop sequence is complete."""
        logprob = None if logprobs is None else self._logprob(token, logprobs)
        return self._replies[index].push(token, logprob)

    def end(self, index: int, reason: Literal["stop", "length"]) -> None:
        """Take the end of a reply: emit the text held back and the finish reason."""
        self._replies[index].end(reason)

    def _logprob(self, token: int, logprobs: TopLogprobs) -> TokenLogprob:
        top = tuple(self._token_logprob(token, value) for token, value in logprobs.top)
        return replace(self._token_logprob(token, logprobs.log_probability), top=top)

    def _token_logprob(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(*self._renderer.token_bytes(token), logprob)


class TextStream:
    """The text of a sequence of tokens, without special tokens, piece by piece.

    The tokenizer's own stream gives no text of a token until its last character is complete; the
    characters before that one are decoded here.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.incomplete = False  # whether a character has begun
        self._renderer = renderer
        self._tokenizer = renderer.tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._held: list[int] = []  # tokens since the last text of the stream
        self._returned = 0  # characters of their text

    def push(self, token: int) -> str:
        """Take a token; return the text that no later token can change."""
        self._held.append(token)
        begin, text = self._returned, self._step(token)
        if text is None:
            held = self._renderer.decode(self._held)
            text = held.rstrip(_REPLACEMENT)
            self._returned, self.incomplete = len(text), text != held
        else:
            self._held, self._returned, self.incomplete = [], 0, False
        return text[begin:]

    def flush(self) -> str:
        """Return the remaining text, a character that stayed incomplete replaced."""
        return self._renderer.decode(self._held)[self._returned :]

    def _step(self, token: int) -> str | None:
        try:
            return self._stream.step(self._tokenizer, token)
        except Exception:
            # SentencePiece's byte tokens are decoded together: an invalid one invalidates those
            # before it, too, and the stream raises rather than take back text.
            self._stream = DecodeStream(self._held, skip_special_tokens=True)
            return self._renderer.decode(self._held)


@dataclass(slots=True)
class _ReplyStream:
    """One reply while it is generated."""

    index: int
    stream: TextStream
    stop: tuple[str, ...]
    tools: ToolUse | None
    listener: Listener
    tokens: int = 0
    alternatives: tuple[Alternative, ...] = ()
    emitted: list[str] = field(default_factory=list)  # text before the first call
    held: str = ""  # text in which a stop sequence or a call may begin
    calls: ToolCallParser | None = None  # from the first call on
    logprobs: "_Logprobs" = field(default_factory=lambda: _Logprobs())

    def push(self, token: int, logprob: TokenLogprob | None) -> bool:
        self.tokens += 1
        fresh = self.stream.push(token)
        if self.calls is not None:
            self._emit_calls(self.calls, fresh)
            return True
        self.held += fresh
        self.logprobs.add(logprob, len(fresh))
        words, call = (self.held, "") if self.tools is None else split_at_call(self.held)
        may_begin_call = self.tools is not None and not call and not self.stream.incomplete
        decided = len(words) - (_overlap(words, CALL_BEGIN) if may_begin_call else 0)
        if self._stop_at(words[:decided]) is not None:
            return False
        if call:
            self._begin_calls(words, call)
        else:
            self._emit_certain()
        return True

    def end(self, reason: Literal["stop", "length"]) -> None:
        tail = self.stream.flush()
        if self.calls is not None:
            self._emit_calls(self.calls, tail)
        if self.calls is not None or self._must_call:
            named = self.tools is not None and self.tools.choice == "named"
            final: FinishReason = "tool_calls" if reason == "stop" and not named else reason
            self.listener(Delta(self.index, "", final))
            return
        self.held += tail
        stop = self._stop_at(self.held)
        logprobs = self.logprobs.take_rest(None if stop is None else self._text(self.held[:stop]))
        self.listener(Delta(self.index, self.held[:stop], reason, self.alternatives, logprobs))

    @property
    def _must_call(self) -> bool:
        """Whether the reply has to be a call, so that its text was at most the beginning of one."""
        return self.tools is not None and self.tools.choice != "auto"

    def _text(self, tail: str) -> str:
        return "".join([*self.emitted, tail])

    def _emit_certain(self) -> None:
        """Emit all but an end that may grow into a stop sequence or a call."""
        ends = self.stop if self.tools is None else (*self.stop, SEPARATOR + CALL_BEGIN, CALL_BEGIN)
        size = len(self.held) - max((_overlap(self.held, end) for end in ends), default=0)
        if (stop := self._stop_at(self.held)) is not None:  # complete, but perhaps part of a call
            size = min(size, stop)
        if size:
            self._emit(self.held[:size], self.logprobs.take(size))
            self.held = self.held[size:]

    def _begin_calls(self, words: str, call: str) -> None:
        if words:
            self._emit(words, self.logprobs.take_rest(self._text(words)))
        self.held = ""
        self.calls = ToolCallParser()
        self._emit_calls(self.calls, call)

    def _emit(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> None:
        self.emitted.append(text)
        self.listener(Delta(self.index, text, logprobs=logprobs))

    def _emit_calls(self, calls: ToolCallParser, text: str) -> None:
        for delta in calls.feed(text):
            self.listener(Delta(self.index, "", tool_calls=(delta,)))

    def _stop_at(self, text: str) -> int | None:
        starts = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return min(starts, default=None)


class _Logprobs:
    """Log-probabilities of tokens, held until the text of each is emitted."""

    def __init__(self) -> None:
        self._held: deque[tuple[int, TokenLogprob]] = deque()  # each with the end of its text
        self._end = 0  # characters of all text
        self._emitted = 0  # characters of the emitted text
        self._spelled = bytearray()  # the bytes of all tokens
        self._emitted_bytes = 0  # those of the emitted tokens

    def add(self, logprob: TokenLogprob | None, characters: int) -> None:
        """Take a token that has added characters to the text."""
        self._end += characters
        if logprob is not None:
            self._held.append((self._end, logprob))
            self._spelled += logprob.bytes or b""

    def take(self, characters: int) -> tuple[TokenLogprob, ...]:
        """Return the tokens whose text ends in the next characters to be emitted."""
        self._emitted += characters
        taken = []
        while self._held and self._held[0][0] <= self._emitted:
            taken.append(self._held.popleft()[1])
            self._emitted_bytes += len(taken[-1].bytes or b"")
        return tuple(taken)

    def take_rest(self, text: str | None = None) -> tuple[TokenLogprob, ...]:
        """Return the remaining tokens, as far as they spell `text`, if the reply is cut to it."""
        remaining = [logprob for _, logprob in self._held]
        size = len(self._spelled) if text is None else _bytes_of(text, self._spelled)
        self._held.clear()
        return _first_bytes(remaining, size - self._emitted_bytes)


def _overlap(text: str, stop: str) -> int:
    """How much of the end of `text` may be the beginning of `stop`."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


def _bytes_of(text: str, spelled: bytearray) -> int:
    """How many of the bytes spell `text`, the beginning of a reply."""
    if spelled.startswith(encoded := text.encode()):
        return len(encoded)
    # Invalid bytes are replaced in the text.
    sizes = range(len(spelled) + 1)
    return next((n for n in sizes if spelled[:n].decode(errors="replace") == text), len(spelled))


def _first_bytes(logprobs: Sequence[TokenLogprob], size: int) -> tuple[TokenLogprob, ...]:
    """The tokens of the first `size` bytes; the last one may be cut."""
    kept = []
    for logprob in logprobs:
        spelled = logprob.bytes or b""
        if len(spelled) > size > 0:
            cut = spelled[:size]
            kept.append(replace(logprob, token=cut.decode(errors="replace"), bytes=cut))
        elif len(spelled) <= size:
            kept.append(logprob)
        else:
            break
        size -= len(spelled)
    return tuple(kept)
