"""Label smoothing within a closed set of replies, held against soft targets in full."""

from pathlib import Path

import pytest
import torch
from tiny_model import trainable_tiny

from emojitune.models.renderer import RenderedExample
from emojitune.training.batches import pack_row
from emojitune.training.forward import attach_lora
from emojitune.training.gradients import ThreadedGradients, row_loss
from emojitune.training.smoothing import LabelSmoothing

STOP = 2
SHARE = 0.1


def example(*reply: int, prompt: tuple[int, ...] = (20, 21)) -> RenderedExample:
    """A prompt, a reply with its stop token, and what the template has behind it."""
    ids = (*prompt, *reply, STOP, 30)
    return RenderedExample(ids, (False,) * len(prompt) + (True,) * (len(reply) + 1) + (False,))


# Three replies (5 6), (5 7) and (5 7 8): after 5 two of three go on with 7, after 5 7 one ends.
EXAMPLES = [example(5, 6), example(5, 7), example(5, 7, 8), example(5, 6, prompt=(22,))]


def test_what_is_given_away_goes_to_the_replies_that_go_on_from_there() -> None:
    target_shifts = list(LabelSmoothing(EXAMPLES, SHARE).target_shifts(EXAMPLES[2]))
    third = SHARE / 3
    assert target_shifts == [
        {},
        pytest.approx({6: third, 7: 2 * third - SHARE}),
        pytest.approx({STOP: SHARE / 2, 8: SHARE / 2 - SHARE}),
        {},
    ]


def test_each_reply_of_a_conversation_begins_anew() -> None:
    first, second = EXAMPLES[0], EXAMPLES[2]
    talk = RenderedExample(first.ids + second.ids, first.mask + second.mask)
    smoothing = LabelSmoothing(EXAMPLES, SHARE)
    assert list(smoothing.target_shifts(talk)) == [
        *smoothing.target_shifts(first),
        *smoothing.target_shifts(second),
    ]


def test_there_are_as_many_shifts_as_targets() -> None:
    """The first token of all is no target, even if it is to be learned."""
    whole = RenderedExample((5, 7, STOP), (True, True, True))
    assert (
        len(list(LabelSmoothing([whole], SHARE).target_shifts(whole)))
        == len(pack_row([whole]).targets)
        == 2
    )


@pytest.mark.parametrize("way", ["fast", "modules"])
def test_the_loss_is_that_of_soft_targets(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "modules":
        monkeypatch.setattr("emojitune.models.loader.is_llama", lambda folder: False)
    forward = attach_lora(trainable_tiny(tiny_base), rank=4, alpha=8.0, seed=0)
    smoothing = LabelSmoothing(EXAMPLES, SHARE)
    row = pack_row(EXAMPLES, smoothing)
    leaves = forward.leaves()
    scored = row_loss(forward, leaves, row)

    logits = forward.logits(row, leaves)[: len(row.targets)].float()
    wanted = torch.nn.functional.one_hot(row.targets, logits.shape[1]).float()
    hard = -(wanted * logits.log_softmax(-1)).sum()
    target_shifts = [shift for one in EXAMPLES for shift in smoothing.target_shifts(one)]
    for place, shift in enumerate(target_shifts):
        for token, by in shift.items():
            wanted[place, token] += by
    torch.testing.assert_close(wanted.sum(-1), torch.ones(len(target_shifts)))
    assert wanted.min() >= 0
    soft = -(wanted * logits.log_softmax(-1)).sum()

    torch.testing.assert_close(scored.loss, hard)
    torch.testing.assert_close(scored.smoothed, soft)
    assert abs(float((soft - hard).detach())) > 1e-3
    ours = torch.autograd.grad(scored.smoothed, leaves)
    for mine, expected in zip(ours, torch.autograd.grad(soft, leaves), strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)


def test_gradients_are_of_the_smoothed_loss_and_the_score_is_not(tiny_base: Path) -> None:
    forward = attach_lora(trainable_tiny(tiny_base), rank=4, alpha=8.0, seed=0)
    found = []
    for smoothing in (None, LabelSmoothing(EXAMPLES, SHARE)):
        with ThreadedGradients(
            forward, torch.device("cpu"), len(EXAMPLES), 1024, smoothing
        ) as threaded:
            score = threaded.backward(EXAMPLES)
        found.append((score, [parameter.grad for parameter in forward.state.values()]))
    (plain, plainly), (smooth, smoothly) = found
    assert plain == smooth
    pairs = list(zip(plainly, smoothly, strict=True))
    assert any(not torch.equal(one, other) for one, other in pairs)  # type: ignore[arg-type]
