import torch

from emojitune.models.renderer import RenderedExample
from emojitune.training.batches import pack_row
from emojitune.training.device import to_device


def test_every_tensor_of_a_pack_and_of_its_parts_is_moved() -> None:
    row = to_device(
        pack_row([RenderedExample((5, 6, 7), (False, True, True))]), torch.device("meta")
    )
    tensors = [row.ids, row.positions, row.logits_indices, row.targets]
    tensors += [row.target_shifts.rows, row.target_shifts.tokens, row.target_shifts.amounts]
    tensors += [row.layout.gather, row.layout.scatter, row.layout.prefix_mask, row.layout.own_mask]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert row.layout.examples == 1
