"""Draws from a closed set of replies, without knowing how probable each of them is.

Going along the set's tokens, drawing at each branch among those that are allowed, comes too often
to replies whose beginnings allow little of what the model would say. How much too often is the
product of what is allowed at each branch behind the first. So a draw is kept with that probability,
else drawn anew: rejection sampling, exact. A tuned model says little but its replies, and few draws
are thrown away. Token ids only.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from math import exp, log

import torch

from emojitune.inference.decoding.constraint import Constraint
from emojitune.inference.decoding.label_search import OpenPath, Scored
from emojitune.inference.decoding.sampling import choose_of
from emojitune.inference.engine.kv_cache import Grown, Growth, Prompt

# Draws of each reply that are made side by side: what they look at is computed in the same passes.
_SIDE_BY_SIDE = 4
_ROUNDS = 3

Tokens = tuple[int, ...]


def draw(
    ids: Sequence[int],
    prompt: Prompt,
    constraint: Constraint,
    stop_ids: frozenset[int],
    temperature: float,
    generators: Sequence[torch.Generator],
) -> Generator[list[Growth], list[Grown], list[Tokens | None]]:
    """A reply for each generator; None where every draw was thrown away.

    Args:
        temperature: Above 0 and at most 1: beyond it, what is allowed could weigh more than 1.
    """
    assert 0.0 < temperature <= 1.0, "no probability to keep a draw with"
    stops = sorted(stop_ids)
    root = OpenPath.root(prompt, constraint)
    [grown] = yield [root.growth(constraint, stops, before=ids[prompt.cached :])]
    known: dict[Tokens, _Branch] = {(): _Branch.of(root, grown, constraint, temperature)}
    replies: list[Tokens | None] = [None] * len(generators)
    for _ in range(_ROUNDS):
        missing = [index for index, reply in enumerate(replies) if reply is None]
        walks = {
            index: [_Walk(known[()], generators[index]) for _ in range(_SIDE_BY_SIDE)]
            for index in missing
        }
        while needed := _needed(walks):
            opened = [path.ahead(constraint) for path in needed.values()]
            results = yield [path.growth(constraint, stops) for path in opened]
            for key, path, found in zip(needed, opened, results, strict=True):
                known[key] = _Branch.of(path, found, constraint, temperature)
            for walk in (walk for several in walks.values() for walk in several):
                walk.go_on(known)
        for index, several in walks.items():
            # The first in order, not the first to end: short replies would win.
            replies[index] = next((walk.reply for walk in several if walk.reply), None)
    return replies


@dataclass(frozen=True, slots=True)
class _Branch:
    """What may follow somewhere: replies that end there, and paths that go on.

    `log_allowed` is the log-probability, at the temperature, that the model says one of these, and
    what was forced on the way here.
    """

    options: Sequence[Scored | OpenPath]
    log_weights: Sequence[float]
    log_allowed: float

    @staticmethod
    def of(path: OpenPath, grown: Grown, constraint: Constraint, temperature: float) -> "_Branch":
        ended, opened = path.expand(grown, constraint)
        options: list[Scored | OpenPath] = [*ended, *opened]
        weights = [option.log_probability / temperature for option in ended]
        weights += [option.score / temperature for option in opened]
        total = max(weights) + log(sum(exp(weight - max(weights)) for weight in weights))
        return _Branch(options, weights, total - path.score / temperature)


class _Walk:
    """One draw on its way: the path that it waits for, or the reply that it came to."""

    def __init__(self, root: _Branch, generator: torch.Generator) -> None:
        self.waits_for: OpenPath | None = None
        self.reply: Tokens | None = None
        self._generator = generator
        # How much may be lost on the way; what is lost at the root, all replies lose.
        self._log_left = log(1.0 - float(torch.rand(1, generator=generator)))
        self._choose(root)

    def go_on(self, known: dict[Tokens, _Branch]) -> None:
        """As far as is known what may follow."""
        while self.waits_for is not None and self.waits_for.spelled in known:
            branch = known[self.waits_for.spelled]
            self.waits_for = None
            self._log_left -= branch.log_allowed
            if self._log_left <= 0.0:
                self._choose(branch)

    def _choose(self, branch: _Branch) -> None:
        number = choose_of(
            branch.log_weights, temperature=1.0, top_p=1.0, generator=self._generator
        )
        option = branch.options[number]
        if isinstance(option, Scored):
            self.reply = option.tokens
        else:
            self.waits_for = option


def _needed(walks: dict[int, list[_Walk]]) -> dict[Tokens, OpenPath]:
    """The paths that some walk waits for, each once."""
    waiting = [walk.waits_for for several in walks.values() for walk in several]
    return {path.spelled: path for path in waiting if path is not None}
