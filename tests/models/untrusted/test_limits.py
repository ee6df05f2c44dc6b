import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from emojitune.errors import ModelError
from emojitune.models.untrusted.limits import check_files


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "base"
    shutil.copytree(tiny_base, copy)
    check_files(copy)
    return copy


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("num_hidden_layers", 10**9, "from 1 to 1024, and is 1000000000"),
        ("vocab_size", 10**12, "from 1 to 4194304, and is 1000000000000"),
        ("head_dim", 0, "and is 0"),
        ("hidden_size", -32, "and is -32"),
        ("hidden_size", True, "and is true"),
        ("num_attention_heads", "four", 'and is "four"'),
        ("max_position_embeddings", 10**15, "and is 1000000000000000"),
        ("intermediate_size", float("nan"), "and is NaN"),
        ("intermediate_size", [64, 10**9], "and is 1000000000"),
        ("num_labels", 10**9, "from 1 to 65536"),
        ("text_config", {"num_hidden_layers": 10**9}, "num_hidden_layers in config.json"),
        ("rope_theta", float("inf"), "finite and at most 1e+15, and one is Infinity"),
        ("rope_parameters", {"factors": [1.0, float("nan")]}, "and one is NaN"),
        ("rope_scaling", {"factor": 10**400}, "and one is 1000000000"),
    ],
)
def test_a_size_in_the_config_has_bounds(folder: Path, key: str, value: Any, found: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ModelError) as error:
        check_files(folder)
    assert found in error.value.message
    assert "Use another base model" in error.value.message
    assert error.value.code == "model_refused"


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("config.json", 2**20),
        ("tokenizer.json", 2**26),
        ("spiece.model", 2**26),
        ("chat_template.jinja", 2**20),
        ("additional_chat_templates/tools.jinja", 2**20),
    ],
)
def test_a_file_has_a_largest_size(folder: Path, name: str, limit: int) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    with (folder / name).open("ab") as file:
        file.truncate(limit + 1)
    with pytest.raises(ModelError, match=f"at most {limit} bytes, and has {limit + 1}"):
        check_files(folder)


@pytest.mark.parametrize(
    "name", ["trainer_state.json", "tekken.json", "sentencepiece.bpe.model", "vocab.txt"]
)
def test_what_published_models_have_is_accepted(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(20 * 2**20)
    check_files(folder)


def test_a_size_may_differ_by_layer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": [64, 128]}))
    check_files(folder)


def test_a_pipe_is_not_read(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json must be a regular file"):
        check_files(folder)


@pytest.mark.parametrize("length", [2**60, 2**24 + 1, 100])
def test_a_header_ends_within_its_file(folder: Path, length: int) -> None:
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelError, match=f"and it declares {length}"):
        check_files(folder)
