"""Samples from log-probabilities, and the log-probabilities reported beside them."""

import math

import pytest
import torch

from emojitune.inference.decoding.sampling import (
    _nucleus,
    gather_logprobs,
    sample,
    seeded_generator,
)

ROW = torch.log(torch.tensor([0.5, 0.3, 0.2]))


def test_temperature_zero_takes_the_most_probable() -> None:
    rows = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    assert sample(rows, temperature=0.0, top_p=1.0, generator=seeded_generator(None, 0)) == 1


def test_samples_follow_the_distribution() -> None:
    rows = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    generator = seeded_generator(0, 0)
    samples = [sample(rows, temperature=1.0, top_p=1.0, generator=generator) for _ in range(4000)]
    shares = [samples.count(i) / len(samples) for i in range(3)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.04)


@pytest.mark.parametrize("spread", [0.01, 2.0, 8.0])  # nuclei of nearly all, many and few tokens
def test_a_nucleus_of_a_large_vocabulary_is_that_of_all_in_order(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = (torch.randn(8000, generator=generator) * spread).softmax(0)
    ordered, order = probabilities.sort(descending=True)
    size = int((ordered.cumsum(0) < 0.9).sum()) + 1
    expected = torch.zeros(8000).index_copy_(0, order[:size], ordered[:size])
    torch.testing.assert_close(_nucleus(probabilities, 0.9), expected, rtol=0, atol=0)


def test_a_nucleus_leaves_the_improbable_out() -> None:
    rows = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    generator = seeded_generator(0, 0)
    samples = {sample(rows, temperature=1.0, top_p=0.7, generator=generator) for _ in range(200)}
    assert samples == {1, 2}
    assert sample(rows, temperature=1.0, top_p=0.0, generator=generator) == 1


def test_impossible_entries_are_never_sampled() -> None:
    rows = torch.tensor([-math.inf, 0.0])
    generator = seeded_generator(0, 0)
    assert {sample(rows, temperature=2.0, top_p=1.0, generator=generator) for _ in range(50)} == {1}


def test_a_seed_and_an_index_fix_a_sample() -> None:
    rows = torch.zeros(1000)

    def sampled(seed: int, index: int) -> int:
        return sample(rows, temperature=1.0, top_p=1.0, generator=seeded_generator(seed, index))

    assert sampled(5, 0) == sampled(5, 0)
    assert sampled(5, 0) != sampled(5, 1)
    assert sampled(5, 0) != sampled(6, 0)
    assert sampled(-5, 0) == sampled(-5, 0)


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-9, 1e-3])
def test_a_temperature_of_nearly_zero_takes_the_most_probable(temperature: float) -> None:
    assert (
        sample(ROW * 50, temperature=temperature, top_p=1.0, generator=seeded_generator(0, 0)) == 0
    )


def test_top_logprobs_have_the_likeliest_first() -> None:
    logprobs = gather_logprobs(ROW, 2, 2)
    assert logprobs.log_probability == pytest.approx(float(ROW[2]))
    assert [token for token, _ in logprobs.top] == [0, 1]
    assert gather_logprobs(ROW, 0, 0).top == ()
    assert len(gather_logprobs(ROW, 0, 20).top) == 3, "no more than there are"


def test_samples_from_a_large_vocabulary_follow_the_distribution() -> None:
    probable = {3: 0.1, 255: 0.2, 256: 0.3, 999: 0.4}
    row = torch.full((1000,), -torch.inf)
    row[list(probable)] = torch.log(torch.tensor(list(probable.values())))
    generator = seeded_generator(1, 0)
    samples = [sample(row, temperature=1.0, top_p=1.0, generator=generator) for _ in range(4000)]
    assert set(samples) == set(probable)
    for token, probability in probable.items():  # five standard deviations are 0.04
        assert samples.count(token) / len(samples) == pytest.approx(probability, abs=0.04)


def test_a_sample_that_rounding_puts_beyond_the_end_is_a_probable_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = torch.full((600,), -torch.inf)
    row[[5, 300]] = torch.tensor([-0.3, -0.2])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.ones(1, dtype=torch.float64))
    assert sample(row, temperature=1.0, top_p=1.0, generator=torch.Generator()) == 300
