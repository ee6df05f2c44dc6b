"""Free replies, token by token, a few tokens in one pass where they can be foreseen.

Token ids only; decoding.py has what is asked for, and who is told.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from emojitune.inference.decoding.constraint import Constraint, State, ahead
from emojitune.inference.decoding.label_sampling import OnEnd, OnToken, Sampling, Weigh
from emojitune.inference.decoding.sampling import TokenScore, choose, masked, score, seeded, shaped
from emojitune.inference.engine.kv_cache import Grown, Growth, Path, Prompt
from emojitune.inference.engine.scheduler import Request

# Tokens of one pass that are foreseen, and those of a reply that come to nothing until it is
# foreseen no more: they stay in the cache until the reply ends.
_FARTHEST, _IN_VAIN = 32, 64
MOST_DROPPED = _FARTHEST + _IN_VAIN


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

    A pass computes a token and what is foreseen behind it: what the guide leaves no choice of, or
    what `foresight` tells. Each token is drawn as it would be without, from what the model says
    behind those before it; where that is another one, what was foreseen is dropped. So replies are
    the same, and only passes are fewer: speculative decoding (Leviathan et al., 2023) with a draft
    that takes no model.
    """
    replies = [
        _Reply(index, sampling, _Course(foresight.constraint) if foresight else None)
        for index in range(sampling.n)
    ]
    before, likely = ids[prompt.cached :], replies[0].likely()
    weigh = foresight.weigh if foresight else None
    state = len(before) - 1 if weigh else None
    opening = Growth(prompt.path, [*before, *likely], [None] * (1 + len(likely)), state=state)
    [first] = yield [opening]
    if weigh and first.state is not None:
        guess = weigh(first.state).guess
        for reply in replies:
            reply.guess(guess)
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
    dropped = len(foreseen) - place
    reply.in_vain += dropped
    likely, path = reply.likely(), grown.path.slots[: len(grown.path) - dropped]
    return Growth(Path(path), [token, *likely], [None] * (1 + len(likely)))


class _Course:
    """Where a reply is in the set that is foreseen, as long as it keeps to it."""

    def __init__(self, constraint: Constraint) -> None:
        self.guess: Callable[[State], int | None] | None = None
        self._constraint = constraint
        self._state: State | None = constraint.start

    def follow(self, token: int) -> None:
        if self._state is not None:
            known = token in self._constraint.allowed_tokens(self._state)
            self._state = self._constraint.advance(self._state, token) if known else None

    def ahead(self) -> tuple[int, ...]:
        return () if self._state is None else ahead(self._constraint, self._state, self.guess)


class _Reply:
    """One free reply on its way. `in_vain` counts the tokens that were foreseen and dropped."""

    def __init__(self, index: int, sampling: Sampling, course: _Course | None) -> None:
        self.index = index
        self.in_vain = 0
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

    def guess(self, guess: Callable[[State], int | None]) -> None:
        """Foresee what is a choice of the set, too."""
        if self._course is not None:
            self._course.guess = guess

    def likely(self) -> Sequence[int]:
        """What is foreseen behind the tokens so far."""
        found: Sequence[int] = ()
        if self.in_vain < _IN_VAIN:
            if self._guide is not None:
                found = self._guide.forced()
            elif self._course is not None:
                found = self._course.ahead()
        return found[: min(_FARTHEST, self.room - 1)]
