"""What is added before a draw, and what is told of it."""

import pytest
import torch

from emojitune.inference.decoding.sampling import (
    biased,
    choose,
    masked,
    penalized,
    score,
    seeded,
    shaped,
    shapes_of,
    shift,
)

ROW = torch.log(torch.tensor([0.5, 0.3, 0.2]))


def test_shapes_add_up_and_leave_the_row_alone() -> None:
    before = ROW.clone()
    first, second, third = before.tolist()
    shapes = [biased({1: 2.0}), penalized(0.5, 1.0)]
    row = shaped(ROW, shapes, {0: 2, 1: 1})
    assert row.tolist() == pytest.approx(
        [first - (2 * 0.5 + 1.0), second + 2.0 - (0.5 + 1.0), third]
    )
    assert torch.equal(ROW, before)


def test_only_shapes_that_change_something_are_made() -> None:
    assert shapes_of({}, 0.0, 0.0) == ()
    assert len(shapes_of({1: 1.0}, 0.0, 0.5)) == 2


def test_a_whole_reply_shifts_by_what_each_of_its_tokens_would() -> None:
    shapes = shapes_of({7: 3.0}, 0.5, 1.0)
    # The first use of a token is free, the second costs 0.5 + 1, the third 2 * 0.5 + 1.
    assert shift([7, 8, 7, 7], shapes) == pytest.approx(3 * 3.0 - 1.5 - 2.0)
    assert shift([1, 2], ()) == 0.0


def test_what_is_masked_is_never_chosen() -> None:
    row = masked(ROW, torch.tensor([False, True, True]))
    draws = {choose(row, temperature=2.0, top_p=1.0, generator=seeded(n, 0)) for n in range(50)}
    assert draws == {1, 2}
    assert choose(row, temperature=0.0, top_p=1.0, generator=seeded(0, 0)) == 1


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-9, 1e-3])
def test_a_temperature_of_nearly_zero_takes_the_most_probable(temperature: float) -> None:
    assert choose(ROW * 50, temperature=temperature, top_p=1.0, generator=seeded(0, 0)) == 0


def test_a_score_has_the_likeliest_first() -> None:
    found = score(ROW, 2, 2)
    assert found.log_probability == pytest.approx(float(ROW[2]))
    assert [token for token, _ in found.top] == [0, 1]
    assert score(ROW, 0, 0).top == ()
    assert len(score(ROW, 0, 20).top) == 3, "no more than there are"


def test_draws_from_a_large_vocabulary_come_as_often_as_they_are_probable() -> None:
    probable = {3: 0.1, 255: 0.2, 256: 0.3, 999: 0.4}
    row = torch.full((1000,), -torch.inf)
    row[list(probable)] = torch.log(torch.tensor(list(probable.values())))
    generator = seeded(1, 0)
    draws = [choose(row, temperature=1.0, top_p=1.0, generator=generator) for _ in range(4000)]
    assert set(draws) == set(probable)
    for token, probability in probable.items():  # five standard deviations are 0.04
        assert draws.count(token) / len(draws) == pytest.approx(probability, abs=0.04)


def test_a_draw_that_rounding_puts_beyond_the_end_is_one_that_was_probable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = torch.full((600,), -torch.inf)
    row[[5, 300]] = torch.tensor([-0.3, -0.2])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.ones(1, dtype=torch.float64))
    assert choose(row, temperature=1.0, top_p=1.0, generator=torch.Generator()) == 300
