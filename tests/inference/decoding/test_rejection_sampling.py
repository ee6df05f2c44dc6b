"""Draws from a closed set come as often as the model says them."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from emojitune.inference.decoding.constraint import label_trie
from emojitune.inference.decoding.rejection_sampling import Tokens, draw
from emojitune.inference.decoding.sampling import seeded
from emojitune.inference.engine.kv_cache import Grown, Growth, Path, Prompt

PROMPT = [1, 20]
STOP = 2
# Token 3 opens most; (3, 4) is an end and a beginning at once; (3, 6, 7, 8) is forced behind 6.
LABELS: list[Tokens] = [(3, 4), (3, 4, 5), (3, 6, 7, 8), (3, 9, 5), (3, 9, 7), (10, 5)]
VOCABULARY = 24
DRAWS = 4000


class Said:
    """A made-up model that says what it should `sure` times as often as anything else."""

    def __init__(self, sure: float) -> None:
        self._sure = sure
        self.passes = 0
        self.tokens = 0

    def row(self, prefix: Tokens) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(n * t for n, t in enumerate(prefix, 7)))
        weights = torch.rand(VOCABULARY, generator=generator) + 0.05
        said = prefix[len(PROMPT) :]
        follow = {label[len(said)] for label in LABELS if label[: len(said)] == said != label}
        weights[[*follow, *([STOP] if said in LABELS else [])]] *= self._sure
        return (weights / weights.sum()).log()

    def grow(self, growth: Growth) -> Grown:
        tokens = (*growth.parent.slots.tolist(), *growth.ids)
        self.tokens += len(growth.ids)
        assert growth.wanted is not None
        ends = range(len(tokens) - len(growth.wanted) + 1, len(tokens) + 1)
        rows = [
            self.row(tokens[:end])[list(wanted)]
            for end, wanted in zip(ends, growth.wanted, strict=True)
        ]
        return Grown(Path(np.array(tokens)), rows)

    def joint(self, label: Tokens) -> float:
        """The log-probability of a label; to end is a choice only where another one goes on."""
        goes_on = any(other[: len(label)] == label != other for other in LABELS)
        tokens = (*label, STOP) if goes_on else label
        return sum(
            float(self.row((*PROMPT, *tokens[:place]))[token]) for place, token in enumerate(tokens)
        )


def drawn(model: Said, temperature: float, seeds: Sequence[int]) -> list[Tokens | None]:
    prompt = Prompt(Path(np.array(PROMPT[:1])), 1)
    generators = [seeded(seed, 0) for seed in seeds]
    asked = draw(PROMPT, prompt, label_trie(LABELS), frozenset({STOP}), temperature, generators)
    growths = next(asked)
    while True:
        model.passes += 1
        try:
            growths = asked.send([model.grow(growth) for growth in growths])
        except StopIteration as stop:
            replies: list[Tokens | None] = stop.value
            return replies


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_reply_comes_as_often_as_the_model_says_it(temperature: float) -> None:
    model = Said(sure=30.0)
    replies = [reply for reply in drawn(model, temperature, range(DRAWS)) if reply is not None]
    assert len(replies) > 0.9 * DRAWS
    weights = torch.tensor([model.joint(label) / temperature for label in LABELS])
    expected = dict(zip(LABELS, torch.softmax(weights, 0).tolist(), strict=True))
    counts = Counter(replies)
    assert set(counts) <= set(LABELS)
    for label, share in expected.items():
        deviation = (share * (1 - share) / len(replies)) ** 0.5
        assert counts[label] / len(replies) == pytest.approx(share, abs=4 * deviation), label


def test_the_same_seed_draws_the_same() -> None:
    once, again = (drawn(Said(30.0), 1.0, range(50)) for _ in range(2))
    assert once == again
    assert len(set(once)) > 1


def test_few_passes_and_nothing_is_computed_twice() -> None:
    model = Said(sure=1000.0)
    assert None not in drawn(model, 1.0, range(50))
    assert model.passes <= 4  # the prompt, then as many as there are branches on a way
    assert model.tokens <= 1 + sum(len(label) for label in LABELS)


def test_a_model_that_would_say_something_else_gives_up() -> None:
    model = Said(sure=0.01)
    assert drawn(model, 1.0, range(20)).count(None) > 10
