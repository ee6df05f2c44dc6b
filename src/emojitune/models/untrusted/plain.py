"""Models, chat templates and tokenizers whose cost is known: linear in what they are given.

They run in this process. Anything else counts as code from elsewhere, and runs in one of its own.
No torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from emojitune.models.untrusted.limits import weight_bytes

# The values of `tokenizer_class` for which tokenizer.json alone is read.
PLAIN_TOKENIZER_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")

# Each message adds at most the template's own text to the output.
_MAX_TEMPLATE_LENGTH = 4096
_MAX_SPECIAL_TOKEN_LENGTH = 64

_PLAIN_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Concat,
)


def is_plain_template(source: str, special_tokens: Mapping[str, Any]) -> bool:
    """Whether a template only writes text and messages: in loops over the messages that are not
    nested, with conditions, and without assignments, arithmetic, filters, macros or other calls.

    Args:
        special_tokens: What the template can write in addition, by name.
    """
    lengths = [len(str(token)) for token in special_tokens.values()]
    if len(source) > _MAX_TEMPLATE_LENGTH or max(lengths, default=0) > _MAX_SPECIAL_TOKEN_LENGTH:
        return False
    try:
        tree = jinja2.Environment().parse(source)
    except (jinja2.TemplateError, RecursionError):
        return False
    return _is_plain(tree, in_loop=False)


def _is_plain(node: nodes.Node, *, in_loop: bool) -> bool:
    children = list(node.iter_child_nodes())
    match node:
        case nodes.For(iter=nodes.Name(name="messages"), recursive=False) if not in_loop:
            children.remove(node.iter)
            in_loop = True
        case nodes.Getitem(node=nodes.Name(name="messages"), arg=nodes.Const()):
            return True
        case nodes.Name(name="messages"):  # written out, or searched, for each of themselves
            return False
        case nodes.Call(node=nodes.Name(name="raise_exception")):
            pass
        case _ if not isinstance(node, _PLAIN_NODES):
            return False
    return all(_is_plain(child, in_loop=in_loop) for child in children)


# What config.json of a plain Llama may hold: each is checked by `limits`, or adds no work.
_PLAIN_CONFIG = frozenset(
    {
        "_model_name_or_path",
        "_name_or_path",
        "architectures",
        "attention_bias",
        "attention_dropout",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "initializer_range",
        "intermediate_size",
        "max_position_embeddings",
        "mlp_bias",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "pad_token_id",
        "pretraining_tp",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
        "vocab_size",
    }
)
_MAX_INSPECTED_BYTES = 4 * 2**20  # of one file, which is parsed here


def is_plain_model(folder: Path) -> bool:
    """Whether a folder holds a Llama with as many weights as config.json says, a plain chat
    template, and a plain tokenizer that no class of its own reads."""
    try:
        config = _read_object(folder / "config.json")
        tokenizer_config = _read_object(folder / "tokenizer_config.json")
        tokenizer_class = tokenizer_config.get("tokenizer_class")
        return (
            config.get("model_type") == "llama"
            and config.keys() <= _PLAIN_CONFIG
            and _parameters(config) <= weight_bytes(folder)
            and tokenizer_class in PLAIN_TOKENIZER_CLASSES
            and is_plain_template(_template(folder, tokenizer_config), special_tokens={})
            and is_plain_tokenizer(_read_object(folder / "tokenizer.json"))
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = tokenizer_config["chat_template"]
    if not isinstance(template, str):
        raise TypeError("several templates")
    return template


def _read_object(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_INSPECTED_BYTES:
        raise ValueError(f"{path.name} is too large to be inspected")
    value = json.loads(path.read_bytes())
    return value if isinstance(value, dict) else {}


def _parameters(config: Mapping[str, Any]) -> int:
    """Number of a Llama's weights in its matrices: each takes a byte or more."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    columns = 2 * head_dim * (heads + (config.get("num_key_value_heads") or heads))
    layer = width * (columns + 3 * config["intermediate_size"])
    parameters: int = config["num_hidden_layers"] * layer + width * config["vocab_size"]
    return parameters


# The patterns by which published models split text into words before they merge its tokens.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PLAIN_PATTERNS = frozenset(
    {
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}",  # Llama 3
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}",  # Qwen 2
        r"\p{N}{1,3}",
        r"[0-9]",
        r"\d",
    }
)

_PLAIN_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip")
_PLAIN_PRE_TOKENIZERS = ("ByteLevel", "Digits", "Metaspace", "Whitespace", "WhitespaceSplit")
_PLAIN_DECODERS = ("ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Strip", "WordPiece")
_MAX_STEPS = 32  # of a part: each may add to what the one before made
_MAX_PREFIX_LENGTH = 4
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
_MAX_AFFIX_LENGTH = 16  # each character of a text gets one


def is_plain_tokenizer(parts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer is byte-pair encoding around steps that are linear in the text.

    Args:
        parts: tokenizer.json, or the same without a vocabulary.
    """
    return (
        _is_byte_pair_encoding(parts.get("model"))
        and _has_plain_steps(parts.get("normalizer"), _PLAIN_NORMALIZERS)
        and _has_plain_steps(parts.get("pre_tokenizer"), _PLAIN_PRE_TOKENIZERS)
        and has_plain_decoder(parts)
    )


def has_plain_decoder(parts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer makes text of tokens by steps that are linear in them.

    Args:
        parts: As for `is_plain_tokenizer`.
    """
    return _has_plain_steps(parts.get("decoder"), _PLAIN_DECODERS)


def tokenizer_parts(tokenizer: Any) -> dict[str, Any]:
    """The parts of a loaded `tokenizers.Tokenizer` that `is_plain_tokenizer` looks at."""
    parts = {name: getattr(tokenizer, name) for name in ("normalizer", "pre_tokenizer", "decoder")}
    states = {name: json.loads(part.__getstate__()) for name, part in parts.items() if part}
    affixes = {name: getattr(tokenizer.model, name, None) for name in _AFFIXES}
    return {**states, "model": {"type": type(tokenizer.model).__name__, **affixes}}


def _is_byte_pair_encoding(model: Any) -> bool:
    return (
        isinstance(model, Mapping)
        and model.get("type") == "BPE"
        and all(len(model.get(name) or "") <= _MAX_AFFIX_LENGTH for name in _AFFIXES)
    )


def _has_plain_steps(part: Any, kinds: tuple[str, ...]) -> bool:
    steps = _steps(part)
    return len(steps) <= _MAX_STEPS and all(_is_plain_step(step, kinds) for step in steps)


def _steps(part: Any) -> list[Any]:
    """The steps of a part that may be one, several in sequence, or absent."""
    if part is None:
        return []
    if isinstance(part, Mapping) and part.get("type") == "Sequence":
        named = [part.get(key) for key in ("normalizers", "pretokenizers", "decoders")]
        return [step for steps in named if isinstance(steps, list) for step in steps]
    return [part]


def _is_plain_step(step: Any, kinds: tuple[str, ...]) -> bool:
    if not isinstance(step, Mapping):
        return False
    match step.get("type"):
        case "Split":
            pattern = step.get("pattern")
            return isinstance(pattern, Mapping) and (
                "String" in pattern or pattern.get("Regex") in _PLAIN_PATTERNS
            )
        case "Replace":
            pattern, content = step.get("pattern"), step.get("content")
            return (
                isinstance(pattern, Mapping)
                and bool(pattern.get("String"))
                and isinstance(content, str)
                and len(content) <= len(pattern["String"])
            )
        case "Prepend":
            return len(str(step.get("prepend"))) <= _MAX_PREFIX_LENGTH
        case "BPEDecoder":
            return bool(step.get("suffix"))  # which a space replaces
        case kind:
            return kind in kinds
