"""Labels sampled by rejection have the probabilities that the model gives them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from decoder_loop import run_decoder

from emojitune.inference.decoding.constraint import LabelTrie
from emojitune.inference.decoding.label_search import LabelQuery
from emojitune.inference.decoding.rejection_sampling import Tokens, sample_labels
from emojitune.inference.decoding.sampling import seeded_generator
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, Path, Prompt

PROMPT = [1, 20]
STOP = 2
# Token 3 begins most; (3, 4) is an end and a prefix at once; (3, 6, 7, 8) is forced after 6.
LABELS: list[Tokens] = [(3, 4), (3, 4, 5), (3, 6, 7, 8), (3, 9, 5), (3, 9, 7), (10, 5)]
VOCABULARY = 24
SAMPLES = 4000


class FakeModel:
    """A model that gives tokens of labels `sure` times the probability of any other token."""

    def __init__(self, sure: float) -> None:
        self._sure = sure
        self.passes = 0
        self.tokens = 0

    def row(self, prefix: Tokens) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(n * t for n, t in enumerate(prefix, 7)))
        weights = torch.rand(VOCABULARY, generator=generator) + 0.05
        reply = prefix[len(PROMPT) :]
        follow = {label[len(reply)] for label in LABELS if label[: len(reply)] == reply != label}
        weights[[*follow, *([STOP] if reply in LABELS else [])]] *= self._sure
        return (weights / weights.sum()).log()

    def forward(self, requests: list[ForwardRequest]) -> list[ForwardResult]:
        self.passes += 1
        return [self._result(request) for request in requests]

    def _result(self, request: ForwardRequest) -> ForwardResult:
        tokens = (*request.parent.slots.tolist(), *request.ids)
        self.tokens += len(request.ids)
        assert request.logprob_tokens is not None
        ends = range(len(tokens) - len(request.logprob_tokens) + 1, len(tokens) + 1)
        rows = [
            self.row(tokens[:end])[list(wanted)]
            for end, wanted in zip(ends, request.logprob_tokens, strict=True)
        ]
        return ForwardResult(Path(np.array(tokens)), rows)

    def joint(self, label: Tokens) -> float:
        """The log-probability of a label; ending is a choice only for a prefix of a longer one."""
        is_prefix = any(other[: len(label)] == label != other for other in LABELS)
        tokens = (*label, STOP) if is_prefix else label
        return sum(
            float(self.row((*PROMPT, *tokens[:place]))[token]) for place, token in enumerate(tokens)
        )


def sampled(model: FakeModel, temperature: float, seeds: Sequence[int]) -> list[Tokens | None]:
    prompt = Prompt(PROMPT, Path(np.array(PROMPT[:1])))
    query = LabelQuery(prompt, LabelTrie(LABELS), frozenset({STOP}))
    decoder = sample_labels(query, temperature, [seeded_generator(seed, 0) for seed in seeds])
    return run_decoder(decoder, model.forward)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_label_has_the_probability_that_the_model_gives_it(temperature: float) -> None:
    model = FakeModel(sure=30.0)
    labels = [label for label in sampled(model, temperature, range(SAMPLES)) if label is not None]
    assert len(labels) > 0.9 * SAMPLES
    weights = torch.tensor([model.joint(label) / temperature for label in LABELS])
    expected = dict(zip(LABELS, torch.softmax(weights, 0).tolist(), strict=True))
    counts = Counter(labels)
    assert set(counts) <= set(LABELS)
    for label, share in expected.items():
        deviation = (share * (1 - share) / len(labels)) ** 0.5
        assert counts[label] / len(labels) == pytest.approx(share, abs=4 * deviation), label


def test_equal_seeds_sample_equal_labels() -> None:
    once, again = (sampled(FakeModel(30.0), 1.0, range(50)) for _ in range(2))
    assert once == again
    assert len(set(once)) > 1


def test_few_passes_and_nothing_is_computed_twice() -> None:
    model = FakeModel(sure=1000.0)
    assert None not in sampled(model, 1.0, range(50))
    assert model.passes <= 4  # the prompt, then one for each branch along a label
    assert model.tokens <= 1 + sum(len(label) for label in LABELS)


def test_a_model_that_prefers_other_tokens_gets_no_sample() -> None:
    model = FakeModel(sure=0.01)
    assert sampled(model, 1.0, range(20)).count(None) > 10
