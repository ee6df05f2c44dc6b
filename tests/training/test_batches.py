from pathlib import Path

import pytest
import torch
from tiny_model import trainable_tiny

from emojitune.dataset.example import Message
from emojitune.models import backend
from emojitune.models.loader import LoadedHF
from emojitune.models.renderer import RenderedExample
from emojitune.training.batches import (
    forward_tokens,
    pack_row,
    pack_rows,
    shuffled_batches,
    truncate,
)
from emojitune.training.forward import Forward, attach_lora
from emojitune.training.gradients import ThreadedGradients, row_loss, split_batch

SYSTEM = Message("system", "You're a chatbot that only responds with emojis!")
CHATS = [
    ("I just passed my driving test!", "(party)"),
    ("What is going on?", "(devil)"),
    ("My dog is tired.", "(yawningface)"),
    ("what", "(dog)"),
]


def rendered(model: LoadedHF) -> list[RenderedExample]:
    return [
        model.renderer.render_example([SYSTEM, Message("user", u), Message("assistant", a)])
        for u, a in CHATS
    ]


@pytest.fixture(params=["fast", "modules"], autouse=True)
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test on both backends."""
    if request.param == "modules":
        monkeypatch.setattr(backend, "read_llama", lambda folder: None)


def adapted(base: Path) -> tuple[Forward, list[torch.Tensor]]:
    """A model with an adapter that is not zero, and its parameters."""
    forward = attach_lora(trainable_tiny(base), rank=4, alpha=8.0, seed=0)
    parameters = list(forward.state.values())
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
    return forward, parameters


def gradients(base: Path, batches: list[list[RenderedExample]]) -> tuple[float, list[torch.Tensor]]:
    """The summed loss over all batches, and its gradients."""
    forward, parameters = adapted(base)
    total, sums = 0.0, [torch.zeros_like(parameter) for parameter in parameters]
    for examples in batches:
        leaves = forward.leaves()
        loss = row_loss(forward, leaves, pack_row(examples)).loss
        forward.assign_grads(torch.autograd.grad(loss, leaves))
        total += float(loss.detach())
        for sum_, parameter in zip(sums, parameters, strict=True):
            assert parameter.grad is not None
            sum_ += parameter.grad
    return total, sums


def test_examples_without_a_common_prefix_are_packed_too(tiny: LoadedHF, tiny_base: Path) -> None:
    pairs = [(ids, (True,) * len(ids)) for ids in ((5, 6, 7), (8, 9, 10, 11), (12, 13))]
    examples = [RenderedExample(*one) for one in pairs]
    assert pack_row(examples).layout.prefix == 0
    packed_loss, packed = gradients(tiny_base, [examples])
    separate_loss, separate = gradients(tiny_base, [[example] for example in examples])
    assert packed_loss == pytest.approx(separate_loss, rel=1e-5)
    for one, other in zip(packed, separate, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_both_backends_have_the_same_loss_and_gradients(
    tiny: LoadedHF, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = rendered(tiny)
    loss, mine = gradients(tiny_base, [examples])
    monkeypatch.setattr(backend, "read_llama", lambda folder: None)
    plain_loss, plain = gradients(tiny_base, [examples])
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_packed_and_separate_examples_have_the_same_loss_and_gradients(
    tiny: LoadedHF, tiny_base: Path
) -> None:
    examples = rendered(tiny)
    packed_loss, packed = gradients(tiny_base, [examples])
    separate_loss, separate = gradients(tiny_base, [[example] for example in examples])
    assert packed_loss == pytest.approx(separate_loss, rel=1e-5)
    assert len(packed) == len(separate) > 0
    for one, other in zip(packed, separate, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_plain_transformers(tiny: LoadedHF, tiny_base: Path) -> None:
    examples = rendered(tiny)
    expected = 0.0
    for example in examples:
        ids = torch.tensor([example.ids])
        targets = torch.tensor(
            [[i if on else -100 for i, on in zip(example.ids, example.loss_mask, strict=True)]]
        )
        with torch.no_grad():
            logits = tiny.module(ids).logits
        expected += float(
            torch.nn.functional.cross_entropy(logits[0, :-1], targets[0, 1:], reduction="sum")
        )
    forward = attach_lora(trainable_tiny(tiny_base), rank=4, alpha=8.0, seed=0)  # starts at zero
    with torch.no_grad():
        loss = row_loss(forward, forward.leaves(), pack_row(examples)).loss
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_common_prefix_is_in_a_row_once(tiny: LoadedHF) -> None:
    examples = rendered(tiny)
    row = pack_row(examples)
    prefix = row.layout.prefix
    assert prefix >= len(tiny.renderer.render_prompt([SYSTEM])) - 2
    tokens = prefix + sum(forward_tokens(e) - prefix for e in examples)
    assert row.ids.shape[1] == tokens + -tokens % 8
    assert row.positions[0, prefix : prefix + 2].tolist() == [prefix, prefix + 1]


def test_logits_indices_and_targets_are_those_of_the_supervised_tokens(tiny: LoadedHF) -> None:
    examples = rendered(tiny)
    row = pack_row(examples)
    supervised = [i for e in examples for i, on in zip(e.ids, e.loss_mask, strict=True) if on]
    assert row.targets.tolist() == supervised
    logits_indices = row.logits_indices.tolist()
    assert all(index >= row.layout.prefix for index in logits_indices[: len(supervised)])
    assert len(logits_indices) == len(supervised) + -len(supervised) % 16


def test_tokens_after_the_last_supervised_one_are_not_run(tiny: LoadedHF, tiny_base: Path) -> None:
    examples = rendered(tiny)
    assert all(e.ids[forward_tokens(e)] in tiny.renderer.stop_ids for e in examples)
    thanks = (Message("user", "Thank you so much for that."), Message("assistant", "no", weight=0))
    longer = [
        tiny.renderer.render_example([SYSTEM, Message("user", u), Message("assistant", a), *thanks])
        for u, a in CHATS
    ]
    assert all(len(one.ids) > len(e.ids) for one, e in zip(longer, examples, strict=True))
    assert torch.equal(pack_row(longer).ids, pack_row(examples).ids)
    nothing = RenderedExample(examples[0].ids, (False,) * len(examples[0].ids))
    loss, expected = gradients(tiny_base, [examples])
    same, found = gradients(tiny_base, [[nothing, *longer]])
    assert same == pytest.approx(loss, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_equal_prompts_with_different_replies_keep_their_own_indices(tiny: LoadedHF) -> None:
    user = Message("user", "what")
    twins = [
        tiny.renderer.render_example([SYSTEM, user, Message("assistant", a)])
        for a in ("(dog)", "(devil)")
    ]
    row = pack_row(twins)
    logits_indices = row.logits_indices[: len(row.targets)].tolist()
    assert len({*logits_indices}) == len(logits_indices)


def test_an_example_supervised_from_its_first_token_on_shares_no_prefix() -> None:
    row = pack_row(
        [
            RenderedExample((5, 6, 7), (True, True, True)),
            RenderedExample((5, 6, 8), (True, True, True)),
        ]
    )
    assert row.layout.prefix == 0
    assert row.targets.tolist() == [6, 7, 6, 8]


def test_rows_are_bounded(tiny: LoadedHF) -> None:
    examples = rendered(tiny)
    bound = 2 * max(len(example.ids) for example in examples)
    rows = list(pack_rows(examples, max_tokens=bound))
    assert len(rows) > 1
    assert all(row.ids.shape[1] <= bound for row in rows)
    assert sum(len(row.targets) for row in rows) == sum(sum(e.loss_mask) for e in examples)


def test_batches_hold_every_example_once_in_an_order_by_the_seed() -> None:
    examples = [RenderedExample((number,), (False,)) for number in range(10)]
    epoch = shuffled_batches(examples, 4, seed=1, epoch=0)
    assert [len(batch) for batch in epoch] == [4, 4, 2]
    assert sorted(e.ids[0] for batch in epoch for e in batch) == list(range(10))
    assert epoch == shuffled_batches(examples, 4, seed=1, epoch=0)
    assert epoch != shuffled_batches(examples, 4, seed=2, epoch=0)
    assert epoch != shuffled_batches(examples, 4, seed=1, epoch=1)


def test_an_example_without_supervised_tokens_is_not_run() -> None:
    long = RenderedExample(tuple(range(100)), (False,) * 100)
    assert pack_row([long]).ids.shape == (1, 8)
    assert not len(pack_row([long]).targets)


def test_truncation_takes_tokens_from_the_end() -> None:
    assert truncate(RenderedExample((1, 2, 3), (False, True, True)), 2) == RenderedExample(
        (1, 2), (False, True)
    )


def test_parts_of_a_batch_have_about_equally_many_tokens() -> None:
    lengths = (9, 1, 5, 2, 8, 3, 4)
    batch = [
        RenderedExample((number,) * length, (True,) * length)
        for number, length in enumerate(lengths)
    ]
    parts = split_batch(batch, 2)
    assert sorted(e.ids[0] for part in parts for e in part) == list(range(len(lengths)))
    assert [sum(len(e.ids) for e in part) for part in parts] == [16, 16]
    assert [len(part) for part in split_batch(batch[:2], 3)] == [1, 1]


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_gradients_of_a_batch_do_not_depend_on_the_number_of_threads(
    tiny: LoadedHF, tiny_base: Path, cores: int
) -> None:
    examples = rendered(tiny) * 6
    supervised = sum(len(pack_row([example]).targets) for example in examples)
    loss, expected_grads = gradients(tiny_base, [examples])
    forward, parameters = adapted(tiny_base)
    before = torch.get_num_threads()
    torch.set_num_threads(cores)
    try:
        with ThreadedGradients(forward, torch.device("cpu"), len(examples), 1024) as threaded:
            score = threaded.backward(examples)
    finally:
        torch.set_num_threads(before)
    assert score.loss == pytest.approx(loss / supervised, rel=1e-5)
    for parameter, expected in zip(parameters, expected_grads, strict=True):
        torch.testing.assert_close(parameter.grad, expected / supervised, atol=1e-5, rtol=1e-4)
