import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import load_tiny

from emojitune.dataset.example import Message
from emojitune.errors import ConfigurationError, ModelError
from emojitune.models import adapter, loader, lora
from emojitune.models.loader import LoadedHF
from emojitune.settings import Settings

IDS = torch.tensor([[1, 50, 60, 70, 2]])


def logits(model: LoadedHF) -> torch.Tensor:
    with torch.no_grad():
        return model.module(IDS).logits  # type: ignore[no-any-return]


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_torn_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def with_a_layer_missing(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_weights_of_another_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def with_an_empty_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def with_another_kind_of_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "clip"}')


def test_a_base_loads_ready_to_reply(tiny: LoadedHF) -> None:
    assert tiny.context_length == 256
    assert tiny.vocabulary == ()
    assert tiny.renderer.stop_ids == {2}
    assert not tiny.module.training
    assert tiny.module.get_parameter("model.norm.weight").dtype == torch.float32


def test_a_model_computes_in_the_dtype_that_is_set(tiny_base: Path) -> None:
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        precision = loader.choose_precision(Settings(device="cpu", dtype=name))
        model = loader.load_hf(tiny_base, precision)
        assert {parameter.dtype for parameter in model.module.parameters()} == {dtype}
        assert precision.reason == f"{name} as set"


def test_auto_takes_bfloat16_only_on_a_processor_with_units_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(device="cpu")
    for unit in ("amx_bf16", "avx512_bf16", "sve_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda unit=unit: {unit: True})
        precision = loader.choose_precision(settings)
        assert precision.dtype == torch.bfloat16
        assert unit in precision.reason
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    precision = loader.choose_precision(settings)
    assert precision.dtype == torch.float32
    assert precision.reason == "float32: this processor has no units for bfloat16 products"


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="EMOJITUNE_DEVICE to auto or cpu"):
        loader.choose_precision(Settings(device="cuda"))
    assert loader.choose_precision(Settings(device="auto")).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_auto_takes_cuda_and_names_the_device() -> None:
    precision = loader.choose_precision(Settings())
    assert precision.device.type == "cuda"
    assert torch.cuda.get_device_name() in precision.reason


def with_a_word_for_a_number(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": "four"}))


def with_an_object_for_a_token(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": {"a": 1}}')


def with_a_list_for_settings(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        without_config,
        without_weights,
        with_torn_weights,
        with_a_layer_missing,
        with_weights_of_another_size,
        without_tokenizer,
        with_an_empty_tokenizer,
        with_another_kind_of_model,
        with_a_word_for_a_number,
        with_an_object_for_a_token,
        with_a_list_for_settings,
    ],
)
def test_a_folder_without_a_complete_model_is_refused(
    damage: Callable[[Path], None], tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    damage(folder)
    with pytest.raises(ModelError, match=re.escape(f"{folder} could not be loaded")) as error:
        load_tiny(folder)
    assert len(error.value.message) < 700, "one screen"


def test_pickled_weights_are_never_read(tiny_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)
    with pytest.raises(ModelError, match="safetensors"):
        load_tiny(folder)


def test_code_in_a_folder_is_never_run(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "y")  # transformers asks, unless it is told
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_tiny(folder)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_changes_the_replies_and_brings_its_vocabulary(
    tiny: LoadedHF, tiny_base: Path, tmp_path: Path
) -> None:
    untuned = logits(tiny)
    lora.attach(tiny.module, rank=4, alpha=8.0, seed=0)
    state = lora.adapter_state(tiny.module)
    with torch.no_grad():
        for parameter in state.values():
            parameter.add_(0.1)
    info = adapter.AdapterInfo("tiny", rank=4, alpha=8.0, vocabulary=("(devil)", "(party)"))
    adapter.write(tmp_path / "adapter", state, info)

    tuned = load_tiny(tiny_base, tmp_path / "adapter")
    assert tuned.vocabulary == ("(devil)", "(party)")
    torch.testing.assert_close(logits(tuned), logits(tiny), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(tuned), untuned, atol=1e-2)
    assert torch.equal(logits(load_tiny(tiny_base)), untuned), "the base on disk is as it was"


def test_a_renderer_alone_equals_that_of_a_loaded_model(tiny: LoadedHF, tiny_base: Path) -> None:
    messages = [Message("user", "hi"), Message("assistant", "(party)")]
    alone = loader.load_renderer(tiny_base)
    assert alone.stop_ids == tiny.renderer.stop_ids
    assert alone.render_example(messages) == tiny.renderer.render_example(messages)


def test_a_folder_without_a_tokenizer_has_no_renderer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a tokenizer"):
        loader.load_renderer(tmp_path)
