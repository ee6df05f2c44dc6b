"""Requests to the engine: a free reply, token by token, and the best of a closed set.

Token ids only. Who asks is told through two callbacks: `on_token(index, token)`, which answers
whether the reply goes on, and `on_end(index, reason)`.
"""

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count as counter

import torch
from torch import Tensor

from emojitune.chat.constraint import Constraint, State
from emojitune.chat.engine import Grown, Growth, Path, Prompt, Request
from emojitune.chat.reply import FinishReason
from emojitune.chat.sampling import choose, choose_of, seeded

OnToken = Callable[[int, int], bool]
OnEnd = Callable[[int, FinishReason], None]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens, or whole replies, are drawn: for `n` replies of at most `max_tokens`."""

    n: int
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A reply of a closed set with its joint log-probability, the end included."""

    tokens: tuple[int, ...]
    log_probability: float


def reply_freely(
    ids: Sequence[int],
    prompt: Prompt,
    sampling: Sampling,
    stop_ids: frozenset[int],
    on_token: OnToken,
    on_end: OnEnd,
) -> Request:
    """Any tokens, until the model stops, the asker does, or `max_tokens` are out."""
    [first] = yield [Growth(prompt.path, ids[prompt.cached :])]
    generators = [seeded(sampling.seed, index) for index in range(sampling.n)]
    live = dict.fromkeys(range(sampling.n), first)
    written = 0
    while live:
        wants: dict[int, Growth] = {}
        for index, grown in live.items():
            token = choose(
                grown.log_probabilities[-1],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                generator=generators[index],
            )
            if token in stop_ids or not on_token(index, token):
                on_end(index, "stop")
            elif written + 1 == sampling.max_tokens:
                on_end(index, "length")
            else:
                wants[index] = Growth(grown.path, [token])
        written += 1
        if not wants:
            return
        live = dict(zip(wants, (yield list(wants.values())), strict=True))


def reply_from_set(
    ids: Sequence[int],
    prompt: Prompt,
    constraint: Constraint,
    sampling: Sampling,
    stop_ids: frozenset[int],
    on_token: OnToken,
    on_end: OnEnd,
    on_ranking: Callable[[list[Scored]], None],
    *,
    alternatives: int = 0,
) -> Request:
    """One whole reply of the set: the most probable, or at a temperature a draw among all.

    Whole replies are weighed by their joint probability. Choosing token by token among what the
    set allows would renormalize at each branch, and prefer replies whose beginnings have few
    continuations.
    """
    drawn = sampling.temperature > 0.0
    ranking = yield from rank(
        ids, prompt, constraint, stop_ids, count=None if drawn else max(1, alternatives)
    )
    on_ranking(ranking[:alternatives])
    for index in range(sampling.n):
        best = choose_of(
            [scored.log_probability for scored in ranking],
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            generator=seeded(sampling.seed, index),
        )
        _deliver(index, ranking[best].tokens, sampling.max_tokens, on_token, on_end)


def rank(
    ids: Sequence[int],
    prompt: Prompt,
    constraint: Constraint,
    stop_ids: frozenset[int],
    *,
    count: int | None,
    width: int = 24,
) -> Generator[list[Growth], list[Grown], list[Scored]]:
    """The `count` most probable replies of a set, best first; all of them when it is None.

    Best-first search. A log-probability only falls along a path, so once `count` replies are
    better than every open path, they are the best there are: the result is exact. `width` paths
    are opened in one pass, because a pass over many tokens costs little more than over one.
    """
    stops = torch.tensor(sorted(stop_ids))
    root = _Open(0.0, (), constraint.start, prompt.path)
    first = _forced(constraint, constraint.start)
    [grown] = yield [Growth(prompt.path, [*ids[prompt.cached :], *first], len(first) + 1)]
    done, children = _expand(root, grown, (), first, constraint, stops)
    order = counter()  # breaks ties, so that the heap never compares paths
    heap = [(-child.score, next(order), child, step) for child, step in children]
    heapq.heapify(heap)
    while heap:
        done.sort(key=lambda scored: -scored.log_probability)
        enough = count is not None and len(done) >= count
        bound = done[count - 1].log_probability if enough and count else float("-inf")
        opened: list[tuple[_Open, int, list[int]]] = []
        while heap and len(opened) < (width if count else 8 * width) and -heap[0][0] > bound:
            _, _, node, step = heapq.heappop(heap)
            opened.append((node, step, _forced(constraint, constraint.advance(node.state, step))))
        if not opened:
            break
        results = yield [
            Growth(node.path, [step, *chain], len(chain) + 1) for node, step, chain in opened
        ]
        for (node, step, chain), grown in zip(opened, results, strict=True):
            ended, children = _expand(node, grown, (step,), chain, constraint, stops)
            done += ended
            for child, next_step in children:
                heapq.heappush(heap, (-child.score, next(order), child, next_step))
    done.sort(key=lambda scored: -scored.log_probability)
    return done[:count]


@dataclass(frozen=True, slots=True)
class _Open:
    """The end of a path, at a state, and the log-probability of a step further.

    `score` counts the step that stands beside it in the heap; `tokens` do not.
    """

    score: float
    tokens: tuple[int, ...]
    state: State
    path: Path


def _expand(
    node: _Open,
    grown: Grown,
    step: tuple[int, ...],
    chain: list[int],
    constraint: Constraint,
    stops: Tensor,
) -> tuple[list[Scored], list[tuple[_Open, int]]]:
    """What a pass made of a step and the forced chain behind it: ended replies, and next steps."""
    rows = grown.log_probabilities
    score = node.score + sum(float(rows[i, token]) for i, token in enumerate(chain))
    state = node.state
    for token in (*step, *chain):
        state = constraint.advance(state, token)
    tokens = (*node.tokens, *step, *chain)
    ended = []
    if constraint.can_end(state):
        ended.append(Scored(tokens, score + float(rows[-1, stops].logsumexp(0))))
    children = [
        (_Open(score + float(rows[-1, token]), tokens, state, grown.path), token)
        for token in constraint.allowed_tokens(state)
    ]
    return ended, children


def _forced(constraint: Constraint, state: State) -> list[int]:
    """The tokens that follow without a choice."""
    chain: list[int] = []
    while not constraint.can_end(state) and len(constraint.allowed_tokens(state)) == 1:
        [token] = constraint.allowed_tokens(state)
        chain.append(token)
        state = constraint.advance(state, token)
    return chain


def _deliver(
    index: int, tokens: Sequence[int], max_tokens: int, on_token: OnToken, on_end: OnEnd
) -> None:
    for token in tokens[:max_tokens]:
        if not on_token(index, token):
            on_end(index, "stop")
            return
    on_end(index, "stop" if len(tokens) <= max_tokens else "length")
