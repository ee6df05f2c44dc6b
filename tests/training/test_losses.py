"""Cross-entropy beside torch's, and label smoothing beside soft targets in full."""

from pathlib import Path

import pytest
import torch
from tiny_model import trainable_tiny
from torch.nn import functional

from emojitune.models.renderer import RenderedExample
from emojitune.training.batches import pack_row
from emojitune.training.forward import attach_lora
from emojitune.training.gradients import ThreadedGradients, row_loss
from emojitune.training.losses import LabelSmoothing, summed_cross_entropy

STOP = 2
EPSILON = 0.1


def example(*reply: int, prompt: tuple[int, ...] = (20, 21)) -> RenderedExample:
    """A prompt, a reply with its stop token, and the rest of the template."""
    ids = (*prompt, *reply, STOP, 30)
    return RenderedExample(ids, (False,) * len(prompt) + (True,) * (len(reply) + 1) + (False,))


# Three replies (5 6), (5 7) and (5 7 8): after 5 two of three go on with 7, after 5 7 one ends.
EXAMPLES = [example(5, 6), example(5, 7), example(5, 7, 8), example(5, 6, prompt=(22,))]


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


def test_probability_is_spread_over_the_replies_that_continue_from_there() -> None:
    shifts = list(LabelSmoothing(EXAMPLES, EPSILON).shifts(EXAMPLES[2]))
    third = EPSILON / 3
    assert shifts == [
        {},
        pytest.approx({6: third, 7: 2 * third - EPSILON}),
        pytest.approx({STOP: EPSILON / 2, 8: EPSILON / 2 - EPSILON}),
        {},
    ]


def test_each_reply_of_a_conversation_starts_over() -> None:
    first, second = EXAMPLES[0], EXAMPLES[2]
    talk = RenderedExample(first.ids + second.ids, first.loss_mask + second.loss_mask)
    smoothing = LabelSmoothing(EXAMPLES, EPSILON)
    assert list(smoothing.shifts(talk)) == [
        *smoothing.shifts(first),
        *smoothing.shifts(second),
    ]


def test_there_are_as_many_shifts_as_targets() -> None:
    """The first token of an example is no target, even if its loss mask is set."""
    supervised = RenderedExample((5, 7, STOP), (True, True, True))
    assert (
        len(list(LabelSmoothing([supervised], EPSILON).shifts(supervised)))
        == len(pack_row([supervised]).targets)
        == 2
    )


@pytest.mark.parametrize("way", ["fast", "modules"])
def test_the_loss_is_that_of_soft_targets(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "modules":
        monkeypatch.setattr("emojitune.models.backend.read_llama", lambda folder: None)
    forward = attach_lora(trainable_tiny(tiny_base), rank=4, alpha=8.0, seed=0)
    smoothing = LabelSmoothing(EXAMPLES, EPSILON)
    row = pack_row(EXAMPLES, smoothing)
    leaves = forward.leaves()
    scored = row_loss(forward, leaves, row)

    logits = forward.logits(row, leaves)[: len(row.targets)].float()
    wanted = torch.nn.functional.one_hot(row.targets, logits.shape[1]).float()
    hard = -(wanted * logits.log_softmax(-1)).sum()
    shifts = [shift for one in EXAMPLES for shift in smoothing.shifts(one)]
    for place, shift in enumerate(shifts):
        for token, by in shift.items():
            wanted[place, token] += by
    torch.testing.assert_close(wanted.sum(-1), torch.ones(len(shifts)))
    assert wanted.min() >= 0
    soft = -(wanted * logits.log_softmax(-1)).sum()

    torch.testing.assert_close(scored.loss, hard)
    torch.testing.assert_close(scored.smoothed, soft)
    assert abs(float((soft - hard).detach())) > 1e-3
    ours = torch.autograd.grad(scored.smoothed, leaves)
    for mine, expected in zip(ours, torch.autograd.grad(soft, leaves), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)


def test_gradients_are_of_the_smoothed_loss_and_the_reported_loss_is_not(tiny_base: Path) -> None:
    forward = attach_lora(trainable_tiny(tiny_base), rank=4, alpha=8.0, seed=0)
    found = []
    for smoothing in (None, LabelSmoothing(EXAMPLES, EPSILON)):
        with ThreadedGradients(
            forward, torch.device("cpu"), len(EXAMPLES), 1024, smoothing
        ) as threaded:
            score = threaded.backward(EXAMPLES)
        found.append((score, [parameter.grad for parameter in forward.state.values()]))
    (plain, plainly), (smooth, smoothly) = found
    assert plain == smooth
    pairs = list(zip(plainly, smoothly, strict=True))
    assert any(not torch.equal(one, other) for one, other in pairs)  # type: ignore[arg-type]
