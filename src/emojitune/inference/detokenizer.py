"""Tokens of a reply to text, log-probabilities and tool calls, told as soon as they are certain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import exp
from typing import Literal

from emojitune.dataset.tool_format import CALL_BEGIN, SEPARATOR
from emojitune.inference.decoding.label_search import Scored
from emojitune.inference.decoding.sampling import TokenScore
from emojitune.inference.tool_calls import parse_calls, text_before_calls
from emojitune.inference.types import (
    Alternative,
    ChatParameters,
    Delta,
    FinishReason,
    Listener,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
)
from emojitune.models.renderer import Renderer


class Detokenizer:
    """All replies to one request."""

    def __init__(self, renderer: Renderer, parameters: ChatParameters, listener: Listener) -> None:
        self._renderer = renderer
        self._replies = [
            _Reply(index, renderer.decode, parameters.stop, parameters.tools, listener)
            for index in range(parameters.n)
        ]

    @property
    def tokens_written(self) -> int:
        return sum(len(reply.tokens) for reply in self._replies)

    def rank(self, ranking: Sequence[Scored], log_total: float | None) -> None:
        """Keep the best replies of a set, to be told with each end.

        `log_total` is the weight of the whole set; None where it is not known.
        """
        alternatives = tuple(
            Alternative(
                self._renderer.decode(scored.tokens),
                scored.log_probability,
                None if log_total is None else exp(scored.weight - log_total),
            )
            for scored in ranking
        )
        for reply in self._replies:
            reply.alternatives = alternatives

    def token(self, index: int, token: int, score: TokenScore | None) -> bool:
        """Take a token; False when a stop sequence has come up."""
        logprob = None if score is None else self._logprob(token, score)
        return self._replies[index].take(token, logprob)

    def end(self, index: int, reason: Literal["stop", "length"]) -> None:
        """Tell what was held back, and the finish reason."""
        self._replies[index].end(reason)

    def _logprob(self, token: int, score: TokenScore) -> TokenLogprob:
        top = tuple(self._described(token, value) for token, value in score.top)
        return replace(self._described(token, score.log_probability), top=top)

    def _described(self, token: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(*self._renderer.token_bytes(token), logprob)


@dataclass(slots=True)
class _Reply:
    """One reply as it grows."""

    index: int
    decode: Callable[[Sequence[int]], str]
    stop: tuple[str, ...]
    tools: ToolUse | None
    listener: Listener
    tokens: list[int] = field(default_factory=list)
    alternatives: tuple[Alternative, ...] = ()
    text: str = ""
    told: int = 0  # characters
    told_calls: list[int] = field(default_factory=list)  # characters of each call's arguments
    spelled: bytes = b""  # by the tokens that have a log-probability
    untold: list[tuple[int, TokenLogprob]] = field(default_factory=list)  # with the text's end
    told_bytes: int = 0

    def take(self, token: int, logprob: TokenLogprob | None) -> bool:
        self.tokens.append(token)
        self.text = self.decode(self.tokens)
        if logprob is not None:
            self.untold.append((_settled(self.text), logprob))
            self.spelled += logprob.bytes or b""
        if self._stop_at(self._words[: self._no_call_before()]) is not None:
            return False
        if self._calls:
            self._tell_calls(self.text[: _settled(self.text)])
        else:
            self._tell(self._certain())
        return True

    def end(self, reason: Literal["stop", "length"]) -> None:
        stop = None if self._must_call else self._stop_at(self._words)
        if stop is None and (self._calls or self._must_call):
            self._tell_calls(self.text)
            named = self.tools is not None and self.tools.choice == "named"
            final: FinishReason = "tool_calls" if reason == "stop" and not named else reason
            self.listener(Delta(self.index, "", final))
            return
        rest, logprobs = self._rest(self.text if stop is None else self.text[:stop])
        self.listener(Delta(self.index, rest, reason, self.alternatives, logprobs))

    @property
    def _words(self) -> str:
        return self.text if self.tools is None else text_before_calls(self.text)

    @property
    def _calls(self) -> bool:
        return self.tools is not None and CALL_BEGIN in self.text

    @property
    def _must_call(self) -> bool:
        """Whether what is no call yet was the beginning of one."""
        return self.tools is not None and self.tools.choice != "auto"

    def _tell(self, certain: int) -> None:
        if certain <= self.told:
            return
        fresh, self.told = self.text[self.told : certain], certain
        ready = [logprob for end, logprob in self.untold if end <= certain]
        self.untold = self.untold[len(ready) :]
        self.told_bytes += sum(len(logprob.bytes or b"") for logprob in ready)
        self.listener(Delta(self.index, fresh, logprobs=tuple(ready)))

    def _rest(self, text: str) -> tuple[str, tuple[TokenLogprob, ...]]:
        """What is not told yet of a text that ends here, and its log-probabilities."""
        rest, self.told = text[self.told :], len(text)
        size = len(self.spelled) if text == self.text else _bytes_of(text, self.spelled)
        logprobs = _first_bytes([logprob for _, logprob in self.untold], size - self.told_bytes)
        self.untold = []
        return rest, logprobs

    def _tell_calls(self, text: str) -> None:
        words = text_before_calls(text) if self._calls else ""
        if self.told < len(words):
            rest, logprobs = self._rest(words)
            self.listener(Delta(self.index, rest, logprobs=logprobs))
        for number, call in enumerate(parse_calls(text)):
            if number == len(self.told_calls):
                self.told_calls.append(0)
                self._tell_piece(ToolCallDelta(number, "", call.name))
            if fresh := call.arguments[self.told_calls[number] :]:
                self.told_calls[number] = len(call.arguments)
                self._tell_piece(ToolCallDelta(number, fresh))

    def _tell_piece(self, piece: ToolCallDelta) -> None:
        self.listener(Delta(self.index, "", tool_calls=(piece,)))

    def _stop_at(self, text: str) -> int | None:
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _no_call_before(self) -> int:
        """Characters of the words that cannot become a call any more."""
        words = self._words
        return len(words) - (0 if self.tools is None else _overlap(words, CALL_BEGIN))

    def _certain(self) -> int:
        """Characters that no later token can take back.

        Not certain are an unfinished character, and an end that may grow into a stop sequence or a
        call.
        """
        settled = _settled(self.text)
        text = self.text[:settled]
        ends = self.stop if self.tools is None else (*self.stop, SEPARATOR + CALL_BEGIN, CALL_BEGIN)
        held = max((_overlap(text, end) for end in ends), default=0)
        return settled - held


def _settled(text: str) -> int:
    """Characters of `text` without an unfinished one at its end."""
    return len(text.rstrip("\ufffd"))


def _overlap(text: str, stop: str) -> int:
    """How much of the end of `text` may be the beginning of `stop`."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)


def _bytes_of(kept: str, spelled: bytes) -> int:
    """How many of the bytes spell the text that a stop sequence has left."""
    sizes = range(len(spelled) + 1)
    return next((n for n in sizes if spelled[:n].decode(errors="replace") == kept), len(spelled))


def _first_bytes(logprobs: Sequence[TokenLogprob], size: int) -> tuple[TokenLogprob, ...]:
    """The tokens that the first bytes come from; what of the last one is left stands for it."""
    kept = []
    for logprob in logprobs:
        own = logprob.bytes or b""
        if len(own) > size > 0:
            left = own[:size]
            kept.append(replace(logprob, token=left.decode(errors="replace"), bytes=left))
        elif len(own) <= size:
            kept.append(logprob)
        else:
            break
        size -= len(own)
    return tuple(kept)
