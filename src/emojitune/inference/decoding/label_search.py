"""The best of a closed set: a search over the tokens of its replies.

Whole replies are weighed by their joint probability. Token ids only.
"""

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import count as counter
from math import exp, log
from typing import Protocol

from torch import Tensor

from emojitune.inference.decoding.constraint import Constraint, State, ahead
from emojitune.inference.engine.kv_cache import Grown, Growth, Path, Prompt

# Nats behind the best open path: what is further off is likely given up before its last token.
_LOOK_AHEAD = 2.0
_GUESSED = 2  # paths of a pass that go on beyond choices


@dataclass(frozen=True, slots=True)
class Scored:
    """A reply of a closed set with the joint log-probability of its tokens.

    Where a longer reply begins with it, that of ending there is part of it too; elsewhere the end
    is no choice. `weight` is what replies are compared by.
    """

    tokens: tuple[int, ...]
    log_probability: float
    weight: float


class Weights(Protocol):
    """What replies are compared by, given what the model says of them.

    Weights are logarithms, up to a constant: at temperature 1 a reply is said with the share that
    its own has of the sum of all.
    """

    def of_reply(self, log_probability: float, state: State) -> float:
        """The weight of the reply that ends in a state of the constraint."""
        ...

    def of_path(self, log_probability: float, state: State) -> float:
        """What no reply through a state exceeds, behind a path to it."""
        ...

    def of_all(self, log_probability: float, state: State) -> float:
        """What all replies through a state weigh together, at most, behind a path to it."""
        ...

    def guess(self, state: State) -> int | None:
        """The token that a state likely goes on with; None where nothing tells beforehand."""
        ...


class Plain:
    """The model's own word: a log-probability only falls along a path."""

    def of_reply(self, log_probability: float, state: State) -> float:
        return log_probability

    def of_path(self, log_probability: float, state: State) -> float:
        return log_probability

    def of_all(self, log_probability: float, state: State) -> float:
        return log_probability

    def guess(self, state: State) -> int | None:
        return None


PLAIN = Plain()

Bound = Callable[[float, State], float]
"""(log-probability of a path, its state) to what lies behind it at most."""

Enough = Callable[[Sequence[Scored], Sequence[float]], bool]
"""Whether a search knows enough: given the replies found, best first, and open paths' bounds."""


def all_known(_found: Sequence[Scored], _open_scores: Sequence[float]) -> bool:
    """Never enough while a path is open."""
    return False


@dataclass(frozen=True, slots=True)
class BestKnown:
    """The `count` best replies are found: no open path can lead to a better one."""

    count: int

    def __call__(self, found: Sequence[Scored], open_scores: Sequence[float]) -> bool:
        return len(found) >= self.count and found[self.count - 1].weight >= max(open_scores)


def log_sum(replies: Sequence[Scored]) -> float:
    """The weight of all replies, best first, together."""
    top = replies[0].weight
    return top + log(sum(exp(scored.weight - top) for scored in replies))


def nearly_all_known(temperature: float, *, tolerance: float = 1e-3) -> Enough:
    """All but a `tolerance` of the probability is found, at a temperature of at most 1.

    At such a temperature what a path leads to weighs no more than the path. Above 1 the many
    improbable replies count, and the search goes on to the last.
    """

    def enough(found: Sequence[Scored], open_scores: Sequence[float]) -> bool:
        if temperature > 1.0 or not found:
            return False
        top = found[0].weight
        known = sum(exp((scored.weight - top) / temperature) for scored in found)
        unknown = sum(exp(min(0.0, score - top) / temperature) for score in open_scores)
        return unknown <= tolerance * known

    return enough


def rank(
    ids: Sequence[int],
    prompt: Prompt,
    constraint: Constraint,
    stop_ids: frozenset[int],
    rules: Sequence[Enough],
    *,
    weigh: Callable[[Tensor], Weights] | None = None,
    width: int = 3,
    widest: int = 16,
) -> Generator[list[Growth], list[Grown], list[Scored]]:
    """The replies of a set, best first, as far down as all `rules` want to know.

    Best-first search. A bound only falls along a path, so no reply that is still to be found
    beats the best open path: what the rules conclude from that is exact. Where they ask for the
    best replies alone, a path is bound by its best one; else by what all behind it weigh together,
    which is far more where many replies begin alike. `width` paths are opened in one pass, because
    a pass over many tokens costs little more than over one, and twice as many in the next, up to
    `widest`: what is not settled soon needs many. The promising ones look ahead, through all
    tokens that follow without a choice, and the best of them through guesses, too: most often they
    are right, and a pass is saved.

    Args:
        weigh: Makes the weights, given the hidden state of the prompt's last token.
    """
    stops = sorted(stop_ids)
    found: list[Scored] = []
    order = counter()  # breaks ties, so that the heap never compares paths
    heap: list[tuple[float, int, OpenPath]] = []

    def take(nodes: Sequence[OpenPath], results: Sequence[Grown]) -> None:
        for node, grown in zip(nodes, results, strict=True):
            ended, children = node.expand(grown, constraint, weights)
            found.extend(ended)
            for child in children:
                heapq.heappush(heap, (-child.bound(bound), next(order), child))
        found.sort(key=lambda scored: -scored.weight)

    weights: Weights = PLAIN
    bound = _bound(weights, rules)
    root = OpenPath.root(prompt, constraint)
    before = ids[prompt.cached :]
    growth = root.growth(constraint, stops, before)
    if weigh is None:
        take([root], (yield [growth]))
    else:
        [grown] = yield [replace(growth, state=len(before) - 1)]
        assert grown.state is not None
        weights = weigh(grown.state)
        bound = _bound(weights, rules)
        take([root], [grown])
    while heap:
        open_scores = [-negative for negative, _, _ in heap]
        if all(enough(found, open_scores) for enough in rules):
            break
        opened = [heapq.heappop(heap)[2] for _ in range(min(width, len(heap)))]
        promising = opened[0].bound(bound) - _LOOK_AHEAD
        opened = [
            node.ahead(constraint, weights.guess if place < _GUESSED else None)
            if node.bound(bound) > promising
            else node
            for place, node in enumerate(opened)
        ]
        take(opened, (yield [node.growth(constraint, stops) for node in opened]))
        width = min(2 * width, widest)
    return found


def _bound(weights: Weights, rules: Sequence[Enough]) -> Bound:
    only_best = all(isinstance(rule, BestKnown) for rule in rules)
    return weights.of_path if only_best else weights.of_all


@dataclass(frozen=True, slots=True)
class OpenPath:
    """A step behind the end of a path, with what likely follows it, not computed yet.

    Attributes:
        path: Where it grows from.
        step: The step; nothing at the root.
        state: The constraint's state behind the step.
        spelled: The reply so far, up to and with the step.
        score: Joint log-probability up to and with the step.
        chain: Tokens behind the step to be computed with it: where there is no choice what must
            follow, at a choice a guess. What is left aside can be opened later.
    """

    path: Path
    step: tuple[int, ...]
    state: State
    spelled: tuple[int, ...]
    score: float
    chain: tuple[int, ...] = ()

    @staticmethod
    def root(prompt: Prompt, constraint: Constraint) -> "OpenPath":
        """Where every reply begins: behind the prompt, and all that each of them begins with."""
        return OpenPath(prompt.path, (), constraint.start, (), 0.0).ahead(constraint)

    def ahead(
        self, constraint: Constraint, guess: Callable[[State], int | None] | None = None
    ) -> "OpenPath":
        """With the chain up to where a choice is, or beyond it as far as there is a guess."""
        return replace(self, chain=ahead(constraint, self.state, guess))

    def bound(self, bound: Bound) -> float:
        """What replies that begin so weigh at most."""
        return bound(self.score, self.state)

    def growth(
        self, constraint: Constraint, stops: Sequence[int], before: Sequence[int] = ()
    ) -> Growth:
        """What to compute: what may follow the step, and each token of the chain, an end included.

        `before` are tokens of the prompt. Behind the last token of a reply that cannot go on
        nothing is left to know, and it is not computed.
        """
        ids = [*before, *self.step, *self.chain]
        wanted = [
            [*(stops if constraint.can_end(state) else ()), *constraint.allowed_tokens(state)]
            for state in self._states(constraint)
        ]
        if wanted[-1]:
            return Growth(self.path, ids, wanted)
        aside = any(len(tokens) > 1 for tokens in wanted)
        return Growth(self.path, ids[:-1], wanted[:-1], keep=aside)

    def expand(
        self, grown: Grown, constraint: Constraint, weights: Weights = PLAIN
    ) -> tuple[list[Scored], list["OpenPath"]]:
        """The replies that end here or with one more token, and the steps to be opened."""
        ended: list[Scored] = []
        opened: list[OpenPath] = []
        spelled, score = self.spelled, self.score
        states = self._states(constraint)
        # What is computed ends before the last row's choice.
        start = len(grown.path) - len(grown.rows) + 1

        def end(spelled: tuple[int, ...], score: float, state: State) -> None:
            ended.append(Scored(spelled, score, weights.of_reply(score, state)))

        for depth, state in enumerate(states):
            following = constraint.allowed_tokens(state)
            if not following:
                end(spelled, score, state)
                break
            row = grown.rows[depth]
            stops = row[: len(row) - len(following)]
            if len(stops):
                end(spelled, score + float(stops.logsumexp(0)), state)
            gains = dict(zip(following, row[len(stops) :].tolist(), strict=True))
            taken = gains.pop(self.chain[depth]) if depth < len(self.chain) else 0.0
            for token, gain in gains.items():
                after, longer = constraint.advance(state, token), (*spelled, token)
                if constraint.allowed_tokens(after):
                    path = Path(grown.path.slots[: start + depth])
                    opened.append(OpenPath(path, (token,), after, longer, score + gain))
                else:
                    end(longer, score + gain, after)
            spelled, score = (*spelled, *self.chain[depth : depth + 1]), score + taken
        return ended, opened

    def _states(self, constraint: Constraint) -> list[State]:
        """The state behind the step, and those behind each token of the chain."""
        states = [self.state]
        for token in self.chain:
            states.append(constraint.advance(states[-1], token))
        return states
