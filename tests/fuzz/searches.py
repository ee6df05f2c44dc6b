"""Searches: the best-first search over a trie finds what weighing every label one by one finds."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from emojitune.chat.constraint import LabelTrie, label_trie
from emojitune.chat.forest import Grown, Growth, Prompt
from emojitune.chat.search import Scored, all_known, best_known, rank

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
)


def faults(search: Search) -> list[str]:
    """Where trie or search say anything else than a look at all labels."""
    trie = label_trie(search.labels)
    labels = set(search.labels)
    if _language(trie, trie.start) != labels:
        return ["the trie spells other labels than it was made of"]
    expected = {label: _joint(search, label, labels) for label in labels}
    found = _ranked(search, trie)[: search.count]
    best = sorted(expected.values(), reverse=True)[: search.count]
    if len({scored.tokens for scored in found}) != len(best):
        return [f"{len(found)} labels, not {len(best)}"]
    return [
        f"{scored} where the best has {score}, and it {expected[scored.tokens]}"
        for scored, score in zip(found, best, strict=True)
        if not _close(scored.log_probability, score)
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


def _ranked(search: Search, trie: LabelTrie) -> list[Scored]:
    rule = best_known(search.count) if search.count else all_known
    root: Any = ()  # a path here is its tokens
    asking = rank(_PROMPT, Prompt(root, 0), trie, frozenset(_STOPS), [rule], width=search.width)
    growths = next(asking)
    while True:
        try:
            growths = asking.send([_grown(search, growth) for growth in growths])
        except StopIteration as stop:
            found: list[Scored] = stop.value
            return found


def _grown(search: Search, growth: Growth) -> Grown:
    parent: Any = growth.parent
    path = (*parent, *growth.ids)
    wanted = growth.wanted or []
    ends = range(len(path) - len(wanted) + 1, len(path) + 1)
    rows = [
        _following(search, path[:end])[list(tokens)]
        for end, tokens in zip(ends, wanted, strict=True)
    ]
    return Grown(path, rows)  # type: ignore[arg-type]
