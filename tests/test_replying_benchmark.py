"""The replying benchmark: its prompts are distinct, and all engines get the same weights."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Numbers
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.gguf_file import with_weights
from benchmarks.reply_prompts import OPENINGS, prompts
from emojitune.dataset.validation import load_examples
from tests.tiny_model import make_tiny_base

VALID = Path("data/emoji_ft_valid.jsonl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "model")


def test_prompts_are_distinct_and_begin_with_the_system_prompt(base: Path) -> None:
    examples = load_examples(VALID)
    found = prompts(examples, AutoTokenizer.from_pretrained(base))
    assert len({prompt.text for prompt in found}) == len(found) == len(OPENINGS) * len(examples)
    assert found[0].messages[1]["content"] == examples[0].messages[1].content
    assert all(p.text.startswith("<|im_start|>system\nYou're a chatbot") for p in found)
    assert all(p.text.endswith("<|im_end|>\n<|im_start|>assistant\n") for p in found)


def test_a_gguf_with_other_weights_computes_what_they_compute(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    original = _empty_gguf(tmp_path / "original.gguf", model.config, Numbers.F32)
    with_weights(original, dict(model.named_parameters()), tmp_path / "tuned.gguf")
    back = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="tuned.gguf", dtype=torch.float32
    )
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(back(ids).logits, model(ids).logits)


def test_only_the_matrices_of_linear_layers_change_their_type(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    original = _empty_gguf(tmp_path / "original.gguf", model.config, Numbers.Q4_1)
    weights = dict(model.named_parameters())
    with_weights(original, weights, tmp_path / "same.gguf")
    with_weights(original, weights, tmp_path / "other.gguf", Numbers.Q8_0)
    before, after = (_numbers(tmp_path / name) for name in ("same.gguf", "other.gguf"))
    assert before == _numbers(original)
    assert {name for name in before if before[name] != after[name]} == {
        name for name in before if before[name] == Numbers.Q4_1
    }


def _empty_gguf(file: Path, config: Any, matrices: Numbers) -> Path:
    """A GGUF of the model's shape without a number in it."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    hidden, inner = config.hidden_size, config.intermediate_size
    narrow = hidden // config.num_attention_heads * config.num_key_value_heads
    shapes = {"token_embd": (config.vocab_size, hidden), "output_norm": (hidden,)}
    for layer in range(config.num_hidden_layers):
        shapes |= {
            f"blk.{layer}.attn_norm": (hidden,),
            f"blk.{layer}.ffn_norm": (hidden,),
            f"blk.{layer}.attn_q": (hidden, hidden),
            f"blk.{layer}.attn_k": (narrow, hidden),
            f"blk.{layer}.attn_v": (narrow, hidden),
            f"blk.{layer}.attn_output": (hidden, hidden),
            f"blk.{layer}.ffn_gate": (inner, hidden),
            f"blk.{layer}.ffn_up": (inner, hidden),
            f"blk.{layer}.ffn_down": (hidden, inner),
        }
    for name, shape in shapes.items():
        kind = matrices if len(shape) > 1 and name != "token_embd" else Numbers.F32
        empty = gguf.quantize(torch.zeros(shape).numpy(), kind)
        writer.add_tensor(f"{name}.weight", empty, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _numbers(file: Path) -> dict[str, Numbers]:
    return {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(file).tensors}
