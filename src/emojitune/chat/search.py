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

from emojitune.chat.constraint import Constraint, State
from emojitune.chat.forest import Grown, Growth, Path, Prompt

# Nats behind the best open path: what is further off is likely given up before its last token.
_LOOK_AHEAD = 2.0


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
        """What all replies through a state weigh together, at most, behind a path to it."""
        ...


class Plain:
    """The model's own word: a log-probability only falls along a path."""

    def of_reply(self, log_probability: float, state: State) -> float:
        return log_probability

    def of_path(self, log_probability: float, state: State) -> float:
        return log_probability


PLAIN = Plain()

Enough = Callable[[Sequence[Scored], Sequence[float]], bool]
"""Whether a search knows enough: given the replies found, best first, and open paths' weights."""


def all_known(_found: Sequence[Scored], _open_scores: Sequence[float]) -> bool:
    """Never enough while a path is open."""
    return False


def best_known(count: int) -> Enough:
    """The `count` best replies are found: no open path can lead to a better one."""

    def enough(found: Sequence[Scored], open_scores: Sequence[float]) -> bool:
        return len(found) >= count and found[count - 1].weight >= max(open_scores)

    return enough


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
    width: int = 4,
    widest: int = 16,
) -> Generator[list[Growth], list[Grown], list[Scored]]:
    """The replies of a set, best first, as far down as all `rules` want to know.

    Best-first search. A weight only falls along a path, so no reply that is still to be found
    beats the best open path: what the rules conclude from that is exact. `width` paths are opened
    in one pass, because a pass over many tokens costs little more than over one, and twice as many
    in the next, up to `widest`: what is not settled soon needs many. The promising ones look ahead,
    through all tokens that follow without a choice.

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
                heapq.heappush(heap, (-child.weight(weights), next(order), child))
        found.sort(key=lambda scored: -scored.weight)

    weights: Weights = PLAIN
    root = OpenPath.root(prompt, constraint)
    before = ids[prompt.cached :]
    growth = root.growth(constraint, stops, before)
    if weigh is None:
        take([root], (yield [growth]))
    else:
        [grown] = yield [replace(growth, state=len(before) - 1)]
        assert grown.state is not None
        weights = weigh(grown.state)
        take([root], [grown])
    while heap:
        open_scores = [-negative for negative, _, _ in heap]
        if all(enough(found, open_scores) for enough in rules):
            break
        opened = [heapq.heappop(heap)[2] for _ in range(min(width, len(heap)))]
        promising = opened[0].weight(weights) - _LOOK_AHEAD
        opened = [
            node.ahead(constraint) if node.weight(weights) > promising else node for node in opened
        ]
        take(opened, (yield [node.growth(constraint, stops) for node in opened]))
        width = min(2 * width, widest)
    return found


@dataclass(frozen=True, slots=True)
class OpenPath:
    """A step behind the end of a path, with what must follow it, not computed yet.

    Attributes:
        path: Where it grows from.
        step: The step; nothing at the root.
        chain: Tokens that then follow without a choice, as far as to be computed with it.
        state: The constraint's state behind the chain.
        spelled: The reply so far, up to and with the chain.
        score: Joint log-probability up to and with the step.
    """

    path: Path
    step: tuple[int, ...]
    chain: tuple[int, ...]
    state: State
    spelled: tuple[int, ...]
    score: float

    @staticmethod
    def root(prompt: Prompt, constraint: Constraint) -> "OpenPath":
        """Where every reply begins: behind the prompt, and all that each of them begins with."""
        return OpenPath(prompt.path, (), (), constraint.start, (), 0.0).ahead(constraint)

    def ahead(self, constraint: Constraint) -> "OpenPath":
        """With the chain up to where a choice is."""
        chain, state = [], self.state
        while not constraint.can_end(state) and len(constraint.allowed_tokens(state)) == 1:
            [token] = constraint.allowed_tokens(state)
            chain.append(token)
            state = constraint.advance(state, token)
        return replace(self, chain=tuple(chain), state=state, spelled=(*self.spelled, *chain))

    def weight(self, weights: Weights) -> float:
        """What no reply that begins so exceeds, nor do all of them together."""
        return weights.of_path(self.score, self.state)

    def growth(
        self, constraint: Constraint, stops: Sequence[int], before: Sequence[int] = ()
    ) -> Growth:
        """What to compute: each token of the chain, then what may follow it, an end included.

        `before` are tokens of the prompt. Behind the last token of a reply that cannot go on
        nothing is left to know, and it is not computed.
        """
        following = constraint.allowed_tokens(self.state)
        ids = [*before, *self.step, *self.chain]
        wanted: list[Sequence[int]] = [(token,) for token in self.chain]
        if not following:
            return Growth(self.path, ids[:-1], wanted, keep=False)
        ends = stops if constraint.can_end(self.state) else ()
        return Growth(self.path, ids, [*wanted, [*ends, *following]])

    def expand(
        self, grown: Grown, constraint: Constraint, weights: Weights = PLAIN
    ) -> tuple[list[Scored], list["OpenPath"]]:
        """The replies that end here or with one more token, and the steps to be opened."""
        forced = sum(float(row[0]) for row in grown.rows[: len(self.chain)])
        score = self.score + forced
        following = constraint.allowed_tokens(self.state)
        if not following:
            return [Scored(self.spelled, score, weights.of_reply(score, self.state))], []
        last = grown.rows[-1]
        stops = last[: len(last) - len(following)]
        ended = []
        if len(stops):
            total = score + float(stops.logsumexp(0))
            ended.append(Scored(self.spelled, total, weights.of_reply(total, self.state)))
        opened = []
        for token, gain in zip(following, last[len(stops) :].tolist(), strict=True):
            state, spelled = constraint.advance(self.state, token), (*self.spelled, token)
            if constraint.allowed_tokens(state):
                opened.append(OpenPath(grown.path, (token,), (), state, spelled, score + gain))
            else:
                total = score + gain
                ended.append(Scored(spelled, total, weights.of_reply(total, state)))
        return ended, opened
