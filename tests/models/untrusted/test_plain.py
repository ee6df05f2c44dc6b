import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_model import CHATML

from emojitune.models.untrusted.plain import (
    is_plain_model,
    is_plain_template,
    is_plain_tokenizer,
)

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "template", [CHATML, SMOLLM2, "{{ bos_token }}{{ raise_exception('Not so.') }}"]
)
def test_templates_that_only_write_messages_are_plain(template: str) -> None:
    assert is_plain_template(template, {"bos_token": "<s>"})


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10 ** 12) %}{% endfor %}",
        "{% for a in messages %}{% for b in messages %}{% endfor %}{% endfor %}",
        "{% for a in messages %}{% else %}{% for b in a %}{% endfor %}{% endfor %}",
        "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% for a in messages %}{{ messages }}{% endfor %}",
        "{% for a in messages %}{{ a in messages }}{% endfor %}",
        "{{ messages[1:] }}",
        "{{ 'a' * 10 ** 10 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ 'a'.zfill(10 ** 9) }}",
        "{% set a = 'a' %}",
        "{% macro f() %}{% endmacro %}",
        "{% if",
        "{{ " + "(" * 1000 + "1" + ")" * 1000 + " }}",
        "a" * 5000,
    ],
)
def test_all_others_are_not(template: str) -> None:
    assert not is_plain_template(template, {})


def test_a_long_special_token_could_be_written_for_each_message() -> None:
    assert not is_plain_template(CHATML, {"bos_token": "a" * 65})


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "WordPiece", "max_input_chars_per_word": 10**9}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "a*a*b"}, "content": ""}},
        {"model": {"type": "BPE", "continuing_subword_prefix": "a" * 10**6}},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Prepend", "prepend": "aaaa"}] * 1000,
            }
        },
        {"decoder": {"type": "BPEDecoder", "suffix": ""}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Sequence"}]}},
        {"decoder": {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}},
    ],
)
def test_a_tokenizer_with_a_step_of_unknown_cost_is_not_plain(
    changes: dict[str, Any], tiny_base: Path
) -> None:
    tokenizer = json.loads((tiny_base / "tokenizer.json").read_text())
    assert is_plain_tokenizer(tokenizer)
    assert not is_plain_tokenizer({**tokenizer, **changes})


def test_the_steps_of_published_tokenizers_are_plain() -> None:
    llama2 = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    qwen2 = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    splits = [{"type": "Split", "pattern": {"Regex": qwen2}}, {"type": "ByteLevel"}]
    gemma = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    for parts in (
        {"decoder": {"type": "Sequence", "decoders": gemma}},
        {"decoder": {"type": "BPEDecoder", "suffix": "</w>"}},
        {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
        {"normalizer": {"type": "Sequence", "normalizers": llama2}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": splits}},
    ):
        assert is_plain_tokenizer({"model": {"type": "BPE"}, **parts})


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"model_type": "gpt2"}),
        ("config.json", {"num_hidden_layers": 1000}),
        ("config.json", {"vocab_size": 10**6}),
        ("config.json", {"auto_map": {"AutoConfig": "its.Own"}}),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"}),
    ],
)
def test_a_model_that_is_more_than_its_weights_is_not_plain(
    file: str, changes: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    assert is_plain_model(folder)
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))
    assert not is_plain_model(folder)


def test_a_model_with_a_template_of_unknown_cost_is_not_plain(
    tiny_base: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (folder / "chat_template.jinja").write_text(endless)
    assert not is_plain_model(folder)
