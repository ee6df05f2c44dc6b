"""Free replies, token by token, a few tokens in one pass where they can be foreseen.

Token ids only; decoding.py has what is asked for, and who is told.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from emojitune.chat.constraint import Constraint, State, ahead
from emojitune.chat.decoding import OnEnd, OnToken, Sampling, Weigh
from emojitune.chat.engine import Request
from emojitune.chat.forest import Grown, Growth, Path, Prompt
from emojitune.chat.sampling import TokenScore, choose, masked, score, seeded, shaped


@dataclass(frozen=True, slots=True)
class Foresight:
    """What free replies of a model likely say: one of the set that it was tuned on.

    `weigh` is `rank`'s; without it, only what is no choice is foreseen.
    """

    constraint: Constraint
    weigh: Weigh | None = None


def reply_freely(
    ids: Sequence[int],
    prompt: Prompt,
    sampling: Sampling,
    stop_ids: frozenset[int],
    on_token: OnToken,
    on_end: OnEnd,
    foresight: Foresight | None = None,
) -> Request:
    """Any tokens that the guide allows, until the model stops, the asker does, or `max_tokens`
    are out.

    A pass computes a token and what is foreseen behind it. Each token is drawn as it would be
    without foresight, from what the model says behind those before it; what was foreseen otherwise
    is dropped (Leviathan et al., 2023: speculative decoding, here with a draft that takes no
    model). So replies are the same, and only passes are fewer.
    """
    before = ids[prompt.cached :]
    weigh = foresight.weigh if foresight else None
    likely = ahead(foresight.constraint, foresight.constraint.start) if foresight else ()
    likely = likely[: sampling.max_tokens - 1]
    state = len(before) - 1 if weigh else None
    opening = Growth(prompt.path, [*before, *likely], [None] * (1 + len(likely)), state=state)
    [first] = yield [opening]
    guess = weigh(first.state).guess if weigh and first.state is not None else None
    replies = [
        _Reply(index, sampling, _Course(foresight.constraint, guess) if foresight else None)
        for index in range(sampling.n)
    ]
    growing = [(reply, opening, first) for reply in replies]
    while growing:
        wants = []
        for reply, growth, grown in growing:
            more = _drawn(reply, growth, grown, stop_ids, on_token, on_end)
            if more is not None:
                wants.append((reply, more))
        if not wants:
            return
        results = yield [growth for _, growth in wants]
        growing = [(*want, grown) for want, grown in zip(wants, results, strict=True)]


def _drawn(
    reply: "_Reply",
    growth: Growth,
    grown: Grown,
    stop_ids: frozenset[int],
    on_token: OnToken,
    on_end: OnEnd,
) -> Growth | None:
    """Draw as far as what came of a growth holds; then what is to be computed next, None where the
    reply has ended."""
    foreseen = growth.ids[len(growth.ids) - growth.rows + 1 :]
    kept = len(grown.path) - len(foreseen)
    for place, row in enumerate(grown.rows):
        token, told = reply.draw(row)
        if token in stop_ids or not on_token(reply.index, token, told) or reply.is_whole(token):
            on_end(reply.index, "stop")
            return None
        if not reply.room:
            on_end(reply.index, "length")
            return None
        if place == len(foreseen) or foreseen[place] != token:
            break
        kept += 1
    likely = reply.likely()
    return Growth(Path(grown.path.slots[:kept]), [token, *likely], [None] * (1 + len(likely)))


class _Course:
    """Where a reply is in the set that is foreseen, as long as it keeps to it."""

    def __init__(self, constraint: Constraint, guess: Callable[[State], int | None] | None) -> None:
        self._constraint = constraint
        self._guess = guess
        self._state: State | None = constraint.start

    def follow(self, token: int) -> None:
        if self._state is not None:
            known = token in self._constraint.allowed_tokens(self._state)
            self._state = self._constraint.advance(self._state, token) if known else None

    def ahead(self) -> tuple[int, ...]:
        return () if self._state is None else ahead(self._constraint, self._state, self._guess)


class _Reply:
    """One free reply on its way."""

    def __init__(self, index: int, sampling: Sampling, course: _Course | None) -> None:
        self.index = index
        self._sampling = sampling
        self._course = course
        self._generator = seeded(sampling.seed, index)
        self._guide = sampling.guide() if sampling.guide else None
        self._counts: Counter[int] = Counter()

    @property
    def room(self) -> int:
        """How many tokens may follow."""
        return self._sampling.max_tokens - self._counts.total()

    def draw(self, row: Tensor) -> tuple[int, TokenScore | None]:
        """The next token, and what the model itself says of it if that is to be told."""
        sampling, shown = self._sampling, shaped(row, self._sampling.shapes, self._counts)
        if self._guide is not None:
            shown = masked(shown, self._guide.allowed(len(shown)))
        token = choose(
            shown,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            generator=self._generator,
        )
        self._counts[token] += 1
        if self._course is not None:
            self._course.follow(token)
        return token, None if sampling.top is None else score(row, token, sampling.top)

    def is_whole(self, token: int) -> bool:
        """Whether nothing may follow a drawn token."""
        return self._guide is not None and not self._guide.advance(token)

    def likely(self) -> tuple[int, ...]:
        """What is foreseen behind the tokens so far."""
        return self._course.ahead()[: self.room - 1] if self._course else ()
