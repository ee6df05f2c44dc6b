"""Attention as a GPU's kernels make it, beside that by hand, on any machine."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from emojitune.training import attention
from emojitune.training.attention import row_layout

HEADS, KEYS, DIM = 4, 2, 8


def flash(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """What the kernel computes, by its definition."""
    rows, columns = query.shape[2], keys.shape[2]
    visible = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    mixed = functional.scaled_dot_product_attention(
        query, keys, values, attn_mask=visible, scale=scaling, enable_gqa=True
    )
    return mixed.transpose(1, 2).flatten(2)


@pytest.mark.parametrize(("prefix", "lengths"), [(5, [3, 1, 6]), (0, [4, 2]), (7, [1])])
def test_both_ways_mix_alike_and_have_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, prefix: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(attention, "_flash", flash)
    generator = torch.Generator().manual_seed(1)
    tokens = prefix + sum(lengths)
    qkv = torch.randn(tokens, HEADS + 2 * KEYS, DIM, generator=generator).requires_grad_()
    asked = torch.randn(tokens, HEADS * DIM, generator=generator)
    layout = row_layout(prefix, lengths)
    found = []
    for way in (attention.attend, attention._attend_fused):
        mixed = way(qkv, HEADS, layout, DIM**-0.5)
        [grad] = torch.autograd.grad((mixed * asked).sum(), [qkv])
        found.append((mixed, grad))
    for by_hand, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, by_hand)


def test_one_long_example_mixes_as_a_short_one_does_and_keeps_no_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(40, HEADS + 2 * KEYS, DIM, generator=generator).requires_grad_()
    asked = torch.randn(40, HEADS * DIM, generator=generator)
    found, largest = [], []

    def keep(tensor: Tensor) -> Tensor:
        largest[-1] = max(largest[-1], tensor.numel())
        return tensor

    for long in (1024, 39):
        monkeypatch.setattr(attention, "LONG_EXAMPLE", long)
        largest.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            mixed = attention.attend(qkv, HEADS, row_layout(17, [23]), DIM**-0.5)
        [grad] = torch.autograd.grad((mixed * asked).sum(), [qkv])
        found.append((mixed, grad))
    for short, alone in zip(*found, strict=True):
        torch.testing.assert_close(alone, short)
    assert largest[0] > HEADS * 40 * DIM >= largest[1]
