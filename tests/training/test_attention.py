"""Attention by a GPU kernel beside attention by hand, on any machine."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emojitune.training import attention
from emojitune.training.attention import row_layout

HEADS, KEYS, DIM = 4, 2, 8


def flash(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """The kernel's output, by its definition."""
    rows, columns = query.shape[2], keys.shape[2]
    visible = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    out = functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=visible, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("prefix", "lengths"), [(5, [3, 1, 6]), (0, [4, 2]), (7, [1])])
def test_fused_attention_has_the_outputs_and_gradients_of_that_by_hand(
    monkeypatch: pytest.MonkeyPatch, prefix: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(attention, "_flash", flash)
    generator = torch.Generator().manual_seed(1)
    tokens = prefix + sum(lengths)
    qkv = torch.randn(tokens, HEADS + 2 * KEYS, DIM, generator=generator).requires_grad_()
    upstream = torch.randn(tokens, HEADS * DIM, generator=generator)
    layout = row_layout(prefix, lengths)
    found = []
    for attend in (attention.attend, attention._attend_fused):
        out = attend(qkv, HEADS, layout, DIM**-0.5)
        [grad] = torch.autograd.grad((out * upstream).sum(), [qkv])
        found.append((out, grad))
    for by_hand, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, by_hand)


def test_a_long_example_attends_as_a_short_one_does_and_keeps_no_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(40, HEADS + 2 * KEYS, DIM, generator=generator).requires_grad_()
    upstream = torch.randn(40, HEADS * DIM, generator=generator)
    found, largest = [], []

    def keep(tensor: Tensor) -> Tensor:
        largest[-1] = max(largest[-1], tensor.numel())
        return tensor

    for long in (1024, 39):
        monkeypatch.setattr(attention, "LONG_EXAMPLE", long)
        largest.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = attention.attend(qkv, HEADS, row_layout(17, [23]), DIM**-0.5)
        [grad] = torch.autograd.grad((out * upstream).sum(), [qkv])
        found.append((out, grad))
    for short, single in zip(*found, strict=True):
        torch.testing.assert_close(single, short)
    assert largest[0] > HEADS * 40 * DIM >= largest[1]
