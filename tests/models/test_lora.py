import json
from pathlib import Path

import pytest
import torch
from tiny_model import float32, load_tiny
from torch import nn

from emojitune.errors import ModelError
from emojitune.models import adapter, loader, lora
from emojitune.models.loader import LoadedHF, LoadedLlama

IDS = torch.tensor([[1, 50, 60, 70, 2]])


def perturbed(model: LoadedHF) -> dict[str, torch.Tensor]:
    """LoRA layers whose update is not zero."""
    lora.attach(model.module, rank=4, alpha=8.0, seed=0)
    state = lora.adapter_state(model.module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in state.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return state


def logits(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(IDS).logits  # type: ignore[no-any-return]


def test_tensors_made_without_modules_equal_those_of_modules(
    tiny: LoadedHF, tiny_base: Path
) -> None:
    lora.attach(tiny.module, rank=4, alpha=8.0, seed=3)
    attached = lora.adapter_state(tiny.module)
    model = loader.load_for_training(tiny_base, float32())
    assert isinstance(model, LoadedLlama)
    made = lora.init_state(model.llama.linear_shapes, rank=4, seed=3, device=torch.device("cpu"))
    assert list(made) == list(attached)
    assert all(torch.equal(made[name], attached[name]) for name in made)
    assert all(tensor.requires_grad for tensor in made.values())


def test_every_linear_layer_but_the_head_is_adapted(tiny: LoadedHF) -> None:
    lora.attach(tiny.module, rank=4, alpha=8.0, seed=0)
    adapted = {name.rpartition(".")[0] for name in lora.adapter_state(tiny.module)}
    assert len(adapted) == 2 * 7  # layers x (q, k, v, o, gate, up, down)
    assert not any("lm_head" in name for name in adapted)


def test_a_new_adapter_changes_nothing(tiny: LoadedHF) -> None:
    before = logits(tiny.module)
    lora.attach(tiny.module, rank=4, alpha=8.0, seed=0)
    assert torch.equal(logits(tiny.module), before)


def test_the_same_seed_draws_the_same_adapter(tiny_base: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        model = load_tiny(tiny_base)
        lora.attach(model.module, rank=4, alpha=8.0, seed=seed)
        states.append(lora.adapter_state(model.module))
    name = "model.layers.0.mlp.up_proj.lora_A"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])


def test_gradients_are_those_of_the_plain_formula() -> None:
    torch.manual_seed(0)
    layer = lora.LoraLinear(nn.Linear(6, 5), 3, 6.0, torch.Generator().manual_seed(0)).double()
    nn.init.normal_(layer.lora_B)
    layer.base.requires_grad_(False)
    x = torch.randn(2, 4, 6, dtype=torch.double, requires_grad=True)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return layer.base(x) + 2.0 * (x @ layer.lora_A.T @ layer.lora_B.T)  # type: ignore[no-any-return]

    inputs = [x, layer.lora_A, layer.lora_B]
    ours = torch.autograd.grad(layer(x).square().sum(), inputs)
    theirs = torch.autograd.grad(plain(x).square().sum(), inputs)
    torch.testing.assert_close(layer(x), plain(x))
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected)


def test_merged_weights_reply_as_the_layers_do(tiny: LoadedHF, tiny_base: Path) -> None:
    state = perturbed(tiny)
    merged = load_tiny(tiny_base).module
    base = logits(merged)
    lora.merge(merged, state, scale=2.0)
    torch.testing.assert_close(logits(merged), logits(tiny.module), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(merged), base, atol=1e-2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_peft_loads_the_adapter_and_computes_the_same(
    tiny: LoadedHF, tiny_base: Path, tmp_path: Path
) -> None:
    import peft

    state = perturbed(tiny)
    adapter.write(tmp_path / "adapter", state, adapter.AdapterInfo("tiny", rank=4, alpha=8.0))
    theirs = peft.PeftModel.from_pretrained(load_tiny(tiny_base).module, tmp_path / "adapter")
    torch.testing.assert_close(logits(theirs), logits(tiny.module), atol=1e-4, rtol=1e-4)


def test_an_adapter_folder_comes_back_as_it_was(tiny: LoadedHF, tmp_path: Path) -> None:
    state = perturbed(tiny)
    info = adapter.AdapterInfo("tiny", rank=4, alpha=8.0, vocabulary=("(devil)", "(party)"))
    adapter.write(tmp_path / "adapter", state, info)
    read_info, tensors = adapter.read(tmp_path / "adapter")
    assert read_info == info
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)


@pytest.mark.parametrize("change", [{"rank": 0}, {"rank": "4"}, {"alpha": float("inf")}])
def test_an_adapter_without_a_scale_is_refused(
    change: dict[str, object], tiny: LoadedHF, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    adapter.write(folder, perturbed(tiny), adapter.AdapterInfo("tiny", rank=4, alpha=8.0))
    info = folder / "emojitune.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), **change}))
    with pytest.raises(ModelError, match="incomplete"):
        adapter.read(folder)


def test_a_truncated_adapter_is_refused(tiny: LoadedHF, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    adapter.write(folder, perturbed(tiny), adapter.AdapterInfo("tiny", rank=4, alpha=8.0))
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="incomplete"):
        adapter.read(folder)


def test_an_adapter_that_is_not_finite_is_refused(tiny: LoadedHF, tmp_path: Path) -> None:
    state = perturbed(tiny)
    with torch.no_grad():
        next(iter(state.values()))[0, 0] = float("nan")
    adapter.write(tmp_path / "adapter", state, adapter.AdapterInfo("tiny", rank=4, alpha=8.0))
    with pytest.raises(ModelError, match="not finite"):
        adapter.read(tmp_path / "adapter")


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="linear layers"):
        lora.attach(nn.Embedding(3, 3), rank=4, alpha=8.0, seed=0)
