import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_model import float32, load_tiny, make_adapter

from emojitune.errors import ModelError
from emojitune.models import adapter, loader, lora
from emojitune.models.backend import HFBackend, LlamaBackend, choose_backend
from emojitune.models.linear import PackedLinear, TrainableLinear
from emojitune.models.llama import FUSED_LINEARS
from emojitune.models.loader import LoadedHF
from emojitune.models.packed_llama import LlamaAdapter, PackedLlama


def changed(base: Path, folder: Path, **config: Any) -> Path:
    """A copy of a base, with other entries in its config."""
    shutil.copytree(base, folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return folder


def plain_llama(folder: Path) -> LlamaBackend:
    backend = choose_backend(folder)
    assert isinstance(backend, LlamaBackend)
    return backend


def packed(folder: Path) -> PackedLlama[PackedLinear]:
    return loader.load_llama(plain_llama(folder), float32(), PackedLinear).llama


def test_packed_weights_equal_those_of_the_modules(tiny_base: Path, tiny: LoadedHF) -> None:
    loaded = loader.load_llama(plain_llama(tiny_base), float32(), PackedLinear)
    assert loaded.context_length == tiny.context_length
    assert loaded.renderer.stop_ids == tiny.renderer.stop_ids
    body: Any = tiny.module.model
    assert torch.equal(loaded.llama.embedding, body.embed_tokens.weight)
    assert torch.equal(loaded.llama.final_norm, body.norm.weight)
    for mine, theirs in zip(loaded.llama.layers, body.layers, strict=True):
        assert torch.equal(mine.input_norm, theirs.input_layernorm.weight)
        assert torch.equal(mine.mlp_norm, theirs.post_attention_layernorm.weight)
        for linear, names in zip(mine.linears, FUSED_LINEARS, strict=True):
            x = torch.randn(3, theirs.get_submodule(names[0]).in_features)
            expected = torch.cat([theirs.get_submodule(name)(x) for name in names], dim=1)
            torch.testing.assert_close(linear(x), expected)


def test_each_weight_counts_once_for_its_size(tiny_base: Path, tiny: LoadedHF) -> None:
    norms = sum(p.nbytes for p in tiny.module.parameters() if p.dim() == 1)
    assert packed(tiny_base).bytes == sum(p.nbytes for p in tiny.module.parameters()) - norms


def test_packed_weights_multiply_as_plain_ones_do() -> None:
    weight = torch.randn(24, 16).bfloat16()
    for rows in (1, 7, 300):
        x = torch.randn(rows, 16).bfloat16()
        torch.testing.assert_close(PackedLinear(weight)(x), x @ weight.T)


@pytest.mark.parametrize(
    "config",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}},
        {"quantization_config": {"quant_method": "fp8"}},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"]},
        {"num_hidden_layers": 3},
        {"tie_word_embeddings": False},
    ],
    ids=lambda config: next(iter(config)),
)
def test_other_models_run_through_transformers(
    tiny_base: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    assert isinstance(choose_backend(tiny_base), LlamaBackend)
    folder = changed(tiny_base, tmp_path / "base", **config)
    assert choose_backend(folder) == HFBackend(folder)


def test_scaled_rotations_are_those_of_transformers(tiny_base: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    folder = changed(tiny_base, tmp_path / "base", rope_parameters=rope)
    assert isinstance(choose_backend(folder), LlamaBackend)
    positions = torch.tensor([0, 5, 200])
    cos, sin = packed(folder).rotary(positions)
    body: Any = load_tiny(folder).module.model
    expected = body.rotary_emb(body.embed_tokens.weight, positions[None])
    for mine, theirs in zip((cos, sin), expected, strict=True):
        assert torch.equal(mine[:, 0], theirs[0, :, : mine.shape[-1]])
    assert not torch.equal(cos, packed(tiny_base).rotary(positions)[0])


def test_an_older_config_means_the_same(tiny_base: Path, tmp_path: Path) -> None:
    older = changed(
        tiny_base, tmp_path / "older", rope_parameters=None, rope_theta=500.0, rope_scaling=None
    )
    newer = changed(
        tiny_base,
        tmp_path / "newer",
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    positions = torch.tensor([0, 5, 200])
    for mine, theirs in zip(
        packed(older).rotary(positions), packed(newer).rotary(positions), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert not torch.equal(mine, packed(tiny_base).rotary(positions)[1])


def test_both_directions_of_a_trainable_linear_use_its_weights() -> None:
    weight = torch.randn(24, 16).bfloat16()
    linear = TrainableLinear(weight)
    rows = torch.randn(5, 24).bfloat16()
    torch.testing.assert_close(linear.input_grad(rows), rows @ weight)
    torch.testing.assert_close(linear(rows @ weight), rows @ weight @ weight.T)


def test_weights_in_several_files_are_found(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    module.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert isinstance(choose_backend(folder), LlamaBackend)
    assert torch.equal(packed(folder).embedding, packed(tiny_base).embedding)


def with_torn_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def with_a_matrix_of_another_size(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    "damage", [with_torn_weights, with_a_matrix_of_another_size, without_tokenizer]
)
def test_an_incomplete_folder_is_refused(
    damage: Callable[[Path], None], tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    damage(folder)
    with pytest.raises(ModelError, match="could not be loaded"):
        loader.load_for_training(folder, float32())


def test_overwriting_a_file_does_not_change_a_loaded_model(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    llama = packed(folder)
    held = [llama.embedding, llama.layers[0].input_norm, llama.layers[0].linears[1].weight]
    before = [tensor.clone() for tensor in held]
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.write(b"\xff" * weights.stat().st_size)
    assert all(map(torch.equal, held, before))


def without_a_layer(state: dict[str, torch.Tensor]) -> None:
    del state["model.layers.1.mlp.up_proj.lora_A"]


def with_a_layer_too_many(state: dict[str, torch.Tensor]) -> None:
    for side in ("A", "B"):
        name = f"mlp.up_proj.lora_{side}"
        state[f"model.layers.2.{name}"] = state[f"model.layers.1.{name}"].clone()


def with_wider_inputs(state: dict[str, torch.Tensor]) -> None:
    state["model.layers.0.mlp.up_proj.lora_A"] = torch.zeros(4, 33)


def with_fewer_outputs(state: dict[str, torch.Tensor]) -> None:
    state["model.layers.0.mlp.up_proj.lora_B"] = torch.zeros(63, 4)


def with_two_ranks(state: dict[str, torch.Tensor]) -> None:
    state["model.layers.0.mlp.up_proj.lora_B"] = torch.zeros(64, 5)


@pytest.mark.parametrize(
    "damage",
    [without_a_layer, with_a_layer_too_many, with_wider_inputs, with_fewer_outputs, with_two_ranks],
)
def test_an_adapter_of_another_base_is_refused(
    damage: Callable[[dict[str, torch.Tensor]], None], tiny_base: Path, tmp_path: Path
) -> None:
    folder = make_adapter(tiny_base, tmp_path / "adapter", 1)
    info, state = adapter.read(folder)
    damage(state)
    adapter.write(folder, state, info)
    with pytest.raises(ModelError, match="very base model it is put on: of its"):
        LlamaAdapter(packed(tiny_base), adapter.read(folder)[1], info.scale)
    with pytest.raises(ModelError, match="very base model it is put on: of its"):
        load_tiny(tiny_base, folder)
    module = load_tiny(tiny_base).module
    lora.attach(module, rank=4, alpha=8.0, seed=0)
    with pytest.raises(ModelError, match="very base model it is put on: of its"):
        lora.load_adapter_state(lora.adapter_state(module), state)
