"""The optimizer equals torch's AdamW to the last bit, and does not import torch's compiler."""

import subprocess
import sys

import torch

from emojitune.training.adam import Adam

SHAPES = [(16, 8), (5, 16), (1, 3)]


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {str(shape): torch.randn(shape, generator=generator) for shape in SHAPES}


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=generator) * 10.0 ** (-step) for shape in SHAPES]


def run(state: dict[str, torch.Tensor], optimizer: Adam, steps: range) -> None:
    for step in steps:
        for tensor, gradient in zip(state.values(), gradients(step), strict=True):
            tensor.grad = gradient
        optimizer.step(0.1 / (1 + step))


def test_adam_updates_tensors_as_torch_does() -> None:
    ours, theirs = tensors(), tensors()
    peer = torch.optim.AdamW(theirs.values(), weight_decay=0.0, fused=True)
    run(ours, Adam(ours), range(6))
    for step in range(6):
        for tensor, gradient in zip(theirs.values(), gradients(step), strict=True):
            tensor.grad = gradient
        peer.param_groups[0]["lr"] = 0.1 / (1 + step)
        peer.step()
    assert not torch.equal(ours[str(SHAPES[0])], tensors()[str(SHAPES[0])])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_optimizer_resumed_from_its_moments_equals_an_uninterrupted_one() -> None:
    uninterrupted, resumed = tensors(), tensors()
    run(uninterrupted, Adam(uninterrupted), range(6))
    first = Adam(resumed)
    run(resumed, first, range(3))
    second = Adam(resumed)
    second.restore({name: moment.clone() for name, moment in first.moments().items()}, 3)
    run(resumed, second, range(3, 6))
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from emojitune.training.adam import Adam; "
        "tensor = torch.ones(2); optimizer = Adam({'a': tensor}); tensor.grad = torch.ones(2); "
        "optimizer.step(0.1); torch.nn.utils.clip_grad_norm_([tensor], 1.0); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
