"""Searches: the best-first search over a trie finds what weighing every label one by one finds.

With the model's word alone, and with what examples say beside it: then the search guesses, too.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from emojitune.inference.decoding.constraint import LabelTrie, label_trie
from emojitune.inference.decoding.knn import NeighbourWeights
from emojitune.inference.decoding.label_search import (
    PLAIN,
    BestKnown,
    Scored,
    Weights,
    all_known,
    nearly_all_known,
    rank,
)
from emojitune.inference.engine.kv_cache import Grown, Growth, Path, Prompt

_STOPS = (0, 1)
_TOKENS = range(2, 7)
_PROMPT = (9, 8)
Label = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Search:
    """A closed set of labels, and a model that is nothing but a seed."""

    labels: tuple[Label, ...]
    seed: int
    sharpness: float
    count: int | None
    width: int
    likeness: float  # how much replies differ by their examples; 0 has none
    sums: bool  # whether what all weigh together is asked for, too


searches = st.builds(
    Search,
    st.lists(
        st.lists(st.sampled_from(_TOKENS), min_size=1, max_size=5).map(tuple),
        min_size=1,
        max_size=12,
    ).map(tuple),
    st.integers(0, 2**32),
    st.sampled_from([0.1, 1.0, 5.0, 30.0]),
    st.sampled_from([None, 1, 2, 5]),
    st.sampled_from([1, 2, 4, 50]),
    st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    st.booleans(),
)


def faults(search: Search) -> list[str]:
    """Where trie or search say anything else than a look at all labels."""
    trie = label_trie(search.labels)
    labels = set(search.labels)
    if _language(trie, trie.start) != labels:
        return ["the trie spells other labels than it was made of"]
    weights = _weights(search, trie)
    expected = {label: _joint(search, label, labels) for label in labels}
    weighed = {
        label: weights.of_reply(score, _end(trie, label)) for label, score in expected.items()
    }
    found = _ranked(search, trie, weights)[: search.count]
    best = sorted(weighed.values(), reverse=True)[: search.count]
    if len({scored.tokens for scored in found}) != len(best):
        return [f"{len(found)} labels, not {len(best)}"]
    return [
        f"{scored} where the best weighs {weight}, and it {expected[scored.tokens]}"
        for scored, weight in zip(found, best, strict=True)
        if not _close(scored.weight, weight)
        or not _close(scored.weight, weighed[scored.tokens])
        or not _close(scored.log_probability, expected[scored.tokens])
    ]


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-4)


def _language(trie: LabelTrie, state: int) -> set[Label]:
    here = {()} if trie.can_end(state) else set()
    return here.union(
        *(
            {(token, *rest) for rest in _language(trie, trie.advance(state, token))}
            for token in trie.allowed_tokens(state)
        )
    )


def _following(search: Search, path: Sequence[int]) -> torch.Tensor:
    """The model: log-probabilities of what comes next."""
    draw = random.Random(f"{search.seed} {tuple(path)}")
    logits = [draw.gauss(0, search.sharpness) for _ in range(10)]
    return torch.log_softmax(torch.tensor(logits), 0)


def _joint(search: Search, label: Label, labels: set[Label]) -> float:
    ways = [(*_PROMPT, *label[:place]) for place in range(len(label) + 1)]
    score = sum(
        float(_following(search, way)[token]) for way, token in zip(ways, label, strict=False)
    )
    if any(other != label and other[: len(label)] == label for other in labels):
        score += float(_following(search, ways[-1])[list(_STOPS)].logsumexp(0))
    return score


def _weights(search: Search, trie: LabelTrie) -> Weights:
    if not search.likeness:
        return PLAIN
    draw = random.Random(search.seed)
    labels = sorted(set(search.labels))
    return NeighbourWeights(
        trie, {_end(trie, label): math.exp(draw.gauss(0, search.likeness)) for label in labels}
    )


def _end(trie: LabelTrie, label: Label) -> int:
    state = trie.start
    for token in label:
        state = trie.advance(state, token)
    return state


def _ranked(search: Search, trie: LabelTrie, weights: Weights) -> list[Scored]:
    rules = [BestKnown(search.count) if search.count else all_known]
    if search.sums:
        rules.append(nearly_all_known(1.0))
    root = Prompt(Path(np.zeros(0, np.int64)), 0)  # a path here is its tokens
    stops, weigh = frozenset(_STOPS), (lambda _state: weights) if search.likeness else None
    asking = rank(_PROMPT, root, trie, stops, rules, weigh=weigh, width=search.width)
    growths = next(asking)
    while True:
        try:
            growths = asking.send([_grown(search, growth) for growth in growths])
        except StopIteration as stop:
            found: list[Scored] = stop.value
            return found


def _grown(search: Search, growth: Growth) -> Grown:
    path = (*growth.parent.slots.tolist(), *growth.ids)
    wanted = growth.wanted or []
    ends = range(len(path) - len(wanted) + 1, len(path) + 1)
    rows = [
        _following(search, path[:end])[list(tokens)]
        for end, tokens in zip(ends, wanted, strict=True)
    ]
    state = None if growth.state is None else torch.zeros(1)
    return Grown(Path(np.array(path)), rows, state)
