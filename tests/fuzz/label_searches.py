"""Searches: the best-first search over a trie finds the labels that scoring each of them finds.

By the model alone, and by examples beside it: then the search drafts, too.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st

from emojitune.inference.decoding.constraint import LabelTrie
from emojitune.inference.decoding.knn import KNNScorer
from emojitune.inference.decoding.label_search import (
    MODEL_SCORER,
    LabelQuery,
    ScoredLabel,
    Scorer,
    TopKFound,
    exhaustive,
    mass_covered,
    rank,
)
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, Path, Prompt

_STOPS = (0, 1)
_TOKENS = range(2, 7)
_PROMPT = (9, 8)
Label = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelSearch:
    """A closed set of labels, and a model that is nothing but a seed."""

    labels: tuple[Label, ...]
    seed: int
    sharpness: float
    count: int | None
    width: int
    similarity: float  # how much labels differ by their examples; 0 has none
    sums: bool  # whether the score of all labels together is needed, too


cases = st.builds(
    LabelSearch,
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


def violations(search: LabelSearch) -> list[str]:
    """Differences between trie or search and a scan of all labels."""
    trie = LabelTrie(search.labels)
    labels = set(search.labels)
    if _labels_of(trie, trie.start) != labels:
        return ["the trie spells other labels than it was made of"]
    scorer = _scorer(search, trie)
    expected = {label: _log_probability(search, label, labels) for label in labels}
    scores = {
        label: scorer.score(log_probability, _final_state(trie, label))
        for label, log_probability in expected.items()
    }
    found = _ranked(search, trie, scorer)[: search.count]
    best = sorted(scores.values(), reverse=True)[: search.count]
    if len({label.tokens for label in found}) != len(best):
        return [f"{len(found)} labels, not {len(best)}"]
    return [
        f"{label} where the best scores {score}, and it {expected[label.tokens]}"
        for label, score in zip(found, best, strict=True)
        if not _close(label.score, score)
        or not _close(label.score, scores[label.tokens])
        or not _close(label.log_probability, expected[label.tokens])
    ]


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-4)


def _labels_of(trie: LabelTrie, state: int) -> set[Label]:
    here = {()} if trie.can_end(state) else set()
    return here.union(
        *(
            {(token, *rest) for rest in _labels_of(trie, trie.advance(state, token))}
            for token in trie.allowed_tokens(state)
        )
    )


def _next_logprobs(search: LabelSearch, path: Sequence[int]) -> torch.Tensor:
    """The model: log-probabilities of what comes next."""
    rng = random.Random(f"{search.seed} {tuple(path)}")
    logits = [rng.gauss(0, search.sharpness) for _ in range(10)]
    return torch.log_softmax(torch.tensor(logits), 0)


def _log_probability(search: LabelSearch, label: Label, labels: set[Label]) -> float:
    ways = [(*_PROMPT, *label[:place]) for place in range(len(label) + 1)]
    score = sum(
        float(_next_logprobs(search, way)[token]) for way, token in zip(ways, label, strict=False)
    )
    if any(other != label and other[: len(label)] == label for other in labels):
        score += float(_next_logprobs(search, ways[-1])[list(_STOPS)].logsumexp(0))
    return score


def _scorer(search: LabelSearch, trie: LabelTrie) -> Scorer:
    if not search.similarity:
        return MODEL_SCORER
    rng = random.Random(search.seed)
    labels = sorted(set(search.labels))
    return KNNScorer(
        trie,
        {_final_state(trie, label): math.exp(rng.gauss(0, search.similarity)) for label in labels},
    )


def _final_state(trie: LabelTrie, label: Label) -> int:
    state = trie.start
    for token in label:
        state = trie.advance(state, token)
    return state


def _ranked(search: LabelSearch, trie: LabelTrie, scorer: Scorer) -> list[ScoredLabel]:
    rules = [TopKFound(search.count) if search.count else exhaustive]
    if search.sums:
        rules.append(mass_covered(1.0))
    prompt = Prompt(_PROMPT, Path(np.zeros(0, np.int64)))  # a path here is its tokens
    make_scorer = (lambda _state: scorer) if isinstance(scorer, KNNScorer) else None
    query = LabelQuery(prompt, trie, frozenset(_STOPS), make_scorer)
    decoder = rank(query, rules, width=search.width)
    requests = next(decoder)
    while True:
        try:
            requests = decoder.send([_result(search, request) for request in requests])
        except StopIteration as stop:
            found: list[ScoredLabel] = stop.value
            return found


def _result(search: LabelSearch, request: ForwardRequest) -> ForwardResult:
    path = (*request.parent.slots.tolist(), *request.ids)
    wanted = request.logprob_tokens or []
    ends = range(len(path) - len(wanted) + 1, len(path) + 1)
    rows = [
        _next_logprobs(search, path[:end])[list(tokens)]
        for end, tokens in zip(ends, wanted, strict=True)
    ]
    state = None if request.hidden_at is None else torch.zeros(1)
    return ForwardResult(Path(np.array(path)), rows, state)
