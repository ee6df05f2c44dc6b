import pytest
import torch
from torch.nn import functional

from emojitune.training.cross_entropy import summed_cross_entropy


@pytest.mark.parametrize("rows", [0, 1, 8, 19])
def test_loss_and_gradient_are_those_of_torch(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 50, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (rows,), generator=generator)
    ours, correct = summed_cross_entropy(logits, targets)
    assert int(correct) == int((logits.argmax(-1) == targets).sum())
    theirs = functional.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    [mine] = torch.autograd.grad(3.0 * ours, logits)
    [expected] = torch.autograd.grad(3.0 * theirs, logits)
    torch.testing.assert_close(mine, expected)


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits = torch.zeros(40, 1000, dtype=torch.bfloat16)
    loss, _ = summed_cross_entropy(logits, torch.zeros(40, dtype=torch.long))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(40 * 6.9077553)


def test_a_target_that_is_all_but_impossible_has_a_finite_loss() -> None:
    logits = torch.tensor([[0.0, 500.0], [0.0, 0.0]])
    loss, correct = summed_cross_entropy(logits, torch.tensor([0, 1]))
    assert float(loss) == pytest.approx(500 + 0.6931472)
    assert int(correct) == 1  # of two equal ones either may be called the best


def test_rows_beyond_the_targets_carry_no_loss() -> None:
    logits = torch.randn(5, 9, requires_grad=True)
    loss, _ = summed_cross_entropy(logits, torch.tensor([1, 2, 3]))
    expected = functional.cross_entropy(logits[:3], torch.tensor([1, 2, 3]), reduction="sum")
    torch.testing.assert_close(loss, expected)
    [gradient] = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient[3:], torch.zeros(2, 9))
    assert gradient[:3].abs().sum(1).min() > 0
