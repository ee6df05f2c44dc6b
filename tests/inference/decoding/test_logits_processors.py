"""Additions before a token is sampled."""

import pytest
import torch

from emojitune.inference.decoding.logits_processors import (
    apply,
    bias,
    mask,
    penalties,
    processors_for,
    total_bias,
)
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.sampling import sample, seeded_generator

ROW = torch.log(torch.tensor([0.5, 0.3, 0.2]))


def test_additions_of_processors_add_up_and_leave_the_row_alone() -> None:
    before = ROW.clone()
    first, second, third = before.tolist()
    processors = [bias({1: 2.0}), penalties(0.5, 1.0)]
    row = apply(ROW, processors, {0: 2, 1: 1})
    assert row.tolist() == pytest.approx(
        [first - (2 * 0.5 + 1.0), second + 2.0 - (0.5 + 1.0), third]
    )
    assert torch.equal(ROW, before)


def test_only_processors_that_add_something_are_made() -> None:
    assert processors_for(SamplingParams()) == ()
    assert len(processors_for(SamplingParams(logit_bias={1: 1.0}, presence_penalty=0.5))) == 2


def test_the_total_bias_is_the_sum_of_additions_along_a_reply() -> None:
    processors = processors_for(
        SamplingParams(logit_bias={7: 3.0}, frequency_penalty=0.5, presence_penalty=1.0)
    )
    # The first use of a token is free, the second costs 0.5 + 1, the third 2 * 0.5 + 1.
    assert total_bias([7, 8, 7, 7], processors) == pytest.approx(3 * 3.0 - 1.5 - 2.0)
    assert total_bias([1, 2], ()) == 0.0


def test_masked_tokens_are_never_sampled() -> None:
    row = mask(ROW, torch.tensor([False, True, True]))
    samples = {
        sample(row, temperature=2.0, top_p=1.0, generator=seeded_generator(n, 0)) for n in range(50)
    }
    assert samples == {1, 2}
    assert sample(row, temperature=0.0, top_p=1.0, generator=seeded_generator(0, 0)) == 1
