"""Replies from a closed set, held against the probability of every label."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from decoder_loop import run_decoder
from label_tokens import LABELS, PROMPT, STOPS, joint

from emojitune.inference.decoding.constraint import LabelTrie
from emojitune.inference.decoding.label_sampling import _token_logprobs, reply_from_set
from emojitune.inference.decoding.label_search import LabelQuery, ScoredLabel
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.sampling import TopLogprobs
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, KVCache
from emojitune.models.loader import LoadedHF


class Replies:
    """A sink that keeps everything, and stops each reply after some tokens."""

    def __init__(self, count: int, stop_after: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(count)]
        self.logprobs: list[list[TopLogprobs | None]] = [[] for _ in range(count)]
        self.ends: dict[int, str] = {}
        self.ranking: list[ScoredLabel] = []
        self.log_total: float | None = None
        self._stop_after = stop_after

    def token(self, index: int, token: int, logprobs: TopLogprobs | None) -> bool:
        self.tokens[index].append(token)
        self.logprobs[index].append(logprobs)
        return len(self.tokens[index]) < self._stop_after

    def end(self, index: int, reason: str) -> None:
        self.ends[index] = reason

    def rank(self, ranking: Sequence[ScoredLabel], log_total: float | None) -> None:
        self.ranking, self.log_total = list(ranking), log_total


def replies(
    model: LoadedHF, params: SamplingParams, *, stop_after: int = 99, **options: Any
) -> Replies:
    cache = KVCache(HFRunner(model.module, torch.device("cpu")))
    query = LabelQuery(cache.match_prefix(PROMPT, None), LabelTrie(LABELS), STOPS)
    sink = Replies(params.n, stop_after)
    decoder = reply_from_set(query, params, sink, **options)
    run_decoder(decoder, lambda requests: cache.forward([requests], [None])[0])
    return sink


@pytest.fixture
def joints(tiny: LoadedHF) -> dict[tuple[int, ...], float]:
    return {label: joint(tiny, label) for label in LABELS}


def test_temperature_zero_replies_with_the_best_label_and_its_alternatives(
    tiny: LoadedHF, joints: dict[tuple[int, ...], float]
) -> None:
    best = sorted(LABELS, key=lambda label: -joints[label])
    found = replies(tiny, SamplingParams(temperature=0.0), alternatives=3)
    assert tuple(found.tokens[0]) == best[0]
    assert found.ends == {0: "stop"}
    assert [label.tokens for label in found.ranking] == best[:3]
    total = math.log(sum(math.exp(value) for value in joints.values()))
    assert found.log_total == pytest.approx(total, abs=0.02)
    assert replies(tiny, SamplingParams(temperature=0.0), probabilities=False).log_total is None


@pytest.mark.parametrize(("temperature", "top_p"), [(0.4, 1.0), (2.0, 1.0), (0.9, 0.99999)])
def test_ranked_samples_follow_the_distribution_over_labels(
    tiny: LoadedHF, joints: dict[tuple[int, ...], float], temperature: float, top_p: float
) -> None:
    params = SamplingParams(n=3000, temperature=temperature, top_p=top_p, seed=1)
    counts = Counter(map(tuple, replies(tiny, params).tokens))
    expected = torch.softmax(torch.tensor([joints[label] for label in LABELS]) / temperature, 0)
    for label, share in zip(LABELS, expected.tolist(), strict=True):
        assert counts[label] / params.n == pytest.approx(share, abs=0.04), label


def test_a_bias_lifts_a_label_by_its_sum_over_the_tokens(
    tiny: LoadedHF, joints: dict[tuple[int, ...], float]
) -> None:
    worst = min(LABELS, key=lambda label: joints[label])
    own = [token for token in worst if sum(token in label for label in LABELS) == 1]
    biased = SamplingParams(temperature=0.0, logit_bias={own[0]: 100.0})
    assert tuple(replies(tiny, biased).tokens[0]) == worst


def test_max_tokens_and_the_sink_cut_labels(tiny: LoadedHF) -> None:
    cut = replies(tiny, SamplingParams(temperature=0.0, max_tokens=1))
    assert (len(cut.tokens[0]), cut.ends) == (1, {0: "length"})
    stopped = replies(tiny, SamplingParams(temperature=0.0), stop_after=1)
    assert (len(stopped.tokens[0]), stopped.ends) == (1, {0: "stop"})


def test_reported_log_probabilities_are_the_models_own(
    tiny: LoadedHF,
) -> None:
    found = replies(tiny, SamplingParams(temperature=0.0, top_logprobs=2))
    tokens = found.tokens[0]
    with torch.no_grad():
        logits = tiny.module(torch.tensor([[*PROMPT, *tokens]])).logits[0]
    rows = torch.log_softmax(logits.float(), -1)[len(PROMPT) - 1 :]
    for token, row, logprobs in zip(tokens, rows[:-1], found.logprobs[0], strict=True):
        assert logprobs is not None
        assert logprobs.log_probability == pytest.approx(float(row[token]), abs=1e-3)
        assert [likely for likely, _ in logprobs.top] == row.topk(2).indices.tolist()


def test_log_probabilities_of_long_labels_keep_no_slots(tiny: LoadedHF) -> None:
    chosen = [(30, *[first] * 99) for first in range(31, 35)]
    cache = KVCache(HFRunner(tiny.module, torch.device("cpu")))
    kept: list[int] = []

    def forward(requests: list[ForwardRequest]) -> list[ForwardResult]:
        kept.extend(len(request.ids) for request in requests if request.keep)
        assert sum(request.logprob_rows for request in requests) <= 128
        [results] = cache.forward([requests], [None])
        cache.release([one.path.slots[len(PROMPT) :] for one in results])
        return results

    found = run_decoder(_token_logprobs(cache.match_prefix(PROMPT, None), chosen, 2), forward)
    assert sum(kept) == len(PROMPT)
    for label in chosen:
        with torch.no_grad():
            logits = tiny.module(torch.tensor([[*PROMPT, *label]])).logits[0]
        rows = torch.log_softmax(logits.float(), -1)[len(PROMPT) - 1 : -1]
        expected = [float(row[token]) for row, token in zip(rows, label, strict=True)]
        assert [one.log_probability for one in found[label]] == pytest.approx(expected, abs=1e-3)
