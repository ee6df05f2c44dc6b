"""The deltas of a reply while it is generated, and that together they are the entire reply."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gathered import request_for
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, ByteLevel, Decoder, Fuse, Replace, Strip
from tokenizers.decoders import Sequence as DecoderSequence
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from emojitune.dataset.tool_format import Tool, call_text, reply_text
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.decoding.sampling import TopLogprobs
from emojitune.inference.detokenizer import Detokenizer, TextStream
from emojitune.inference.types import Delta, TokenLogprob
from emojitune.models import loader
from emojitune.models.loader import LoadedHF
from emojitune.models.renderer import Renderer

STOP = Tool("stop_it", {"type": "object", "properties": {}, "additionalProperties": False})
CALL = call_text("stop_it", "{}")


@pytest.fixture
def renderer(tiny: LoadedHF) -> Renderer:
    return tiny.renderer


def generated(renderer: Renderer, text: str, **parameters: Any) -> list[Delta]:
    """The deltas of a reply of this text, until it ends or is stopped."""
    deltas: list[Delta] = []
    detokenizer = Detokenizer(
        renderer, request_for(tools=ToolUse((STOP,)), **parameters), deltas.append
    )
    for token in renderer.encode_text(text):
        if not detokenizer.token(0, token, TopLogprobs(-0.5, ())):
            break
    detokenizer.end(0, "stop")
    return deltas


def joined_text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def spelled(deltas: list[Delta]) -> str:
    logprobs: list[TokenLogprob] = [one for delta in deltas for one in delta.logprobs]
    return b"".join(one.bytes or b"" for one in logprobs).decode()


def called(deltas: list[Delta]) -> list[tuple[int, str | None]]:
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert {piece.arguments for piece in pieces} <= {"", "{", "}", "{}"}
    return [(piece.index, piece.name) for piece in pieces if piece.name]


def test_words_before_calls_are_text(renderer: Renderer) -> None:
    deltas = generated(renderer, reply_text("Let me look.\nA moment.", [CALL, CALL]))
    assert joined_text(deltas) == spelled(deltas) == "Let me look.\nA moment."
    assert called(deltas) == [(0, "stop_it"), (1, "stop_it")]
    first_call = next(n for n, delta in enumerate(deltas) if delta.tool_calls)
    assert not any(delta.text for delta in deltas[first_call:])
    assert deltas[-1].finish_reason == "tool_calls"


def test_a_call_alone_has_no_words(renderer: Renderer) -> None:
    deltas = generated(renderer, CALL)
    assert joined_text(deltas) == spelled(deltas) == ""
    assert called(deltas) == [(0, "stop_it")]


@pytest.mark.parametrize("text", ["Well", "a < b\n", "<tool>", "no\n<tool_cal", "\n\n"])
def test_text_that_only_begins_like_a_call_is_text(renderer: Renderer, text: str) -> None:
    deltas = generated(renderer, text)
    assert joined_text(deltas) == spelled(deltas) == text
    assert called(deltas) == []
    assert deltas[-1].finish_reason == "stop"


def test_stop_sequences_end_words_and_not_calls(renderer: Renderer) -> None:
    assert (
        joined_text(generated(renderer, "Let me look. A moment.", stop=(" A",))) == "Let me look."
    )
    deltas = generated(renderer, reply_text("Let me look.", [CALL]), stop=("name", "<"))
    assert joined_text(deltas) == "Let me look."
    assert called(deltas) == [(0, "stop_it")]
    assert joined_text(generated(renderer, "a < b", stop=("<",))) == "a "


def test_no_part_of_a_stop_sequence_is_emitted_where_a_call_might_begin(renderer: Renderer) -> None:
    assert joined_text(generated(renderer, "ax<<y", stop=("x<",))) == "a"


def texts_of(renderer: Renderer, tokens: Sequence[int]) -> list[str]:
    """The pieces that a stream gives of these tokens."""
    stream = TextStream(renderer)
    return [*(stream.push(token) for token in tokens), stream.flush()]


def test_pieces_of_any_tokens_are_their_text(renderer: Renderer) -> None:
    size = len(renderer.tokenizer)
    special = sorted(renderer.stop_ids)
    text = "a \N{GRINNING FACE} café \N{HEAVY BLACK HEART}\ufe0f\u200d\ufffd"
    words = renderer.encode_text(text)
    shuffle = random.Random(0)
    for _ in range(300):
        tokens: list[int] = []
        for _ in range(12):
            more = (words, [shuffle.randrange(size)], special, words[: shuffle.randrange(9)])
            tokens += shuffle.choice(more)
        assert "".join(texts_of(renderer, tokens)) == renderer.decode(tokens)


def test_complete_characters_do_not_wait_for_an_incomplete_one(renderer: Renderer) -> None:
    tokens = renderer.encode_text("\N{GRINNING FACE}")
    assert len(tokens) == 4  # a token for each byte
    assert texts_of(renderer, tokens) == ["", "", "", "\N{GRINNING FACE}", ""]
    assert texts_of(renderer, tokens[:3]) == ["", "", "", "\ufffd"]
    [letter] = renderer.encode_text("a")
    assert texts_of(renderer, [*tokens[:2], letter]) == ["", "", "\ufffda", ""]


class CountingDecoder:
    """A byte-level decoder that counts the tokens it is given."""

    def __init__(self) -> None:
        self.tokens = 0

    def decode_chain(self, tokens: list[str]) -> list[str]:
        self.tokens += len(tokens)
        return [ByteLevel().decode(tokens)]


@pytest.mark.parametrize("text", ["I am \N{GRINNING FACE}! ", "{}, [] ", "<tool_cal"])
def test_decoding_is_linear_in_the_reply(tiny_base: Path, text: str) -> None:
    renderer = loader.load_renderer(tiny_base)
    tokens = renderer.encode_text(text * 300)
    decoder = CountingDecoder()
    renderer.tokenizer.backend_tokenizer.decoder = Decoder.custom(decoder)
    deltas: list[Delta] = []
    detokenizer = Detokenizer(renderer, request_for(tools=ToolUse((STOP,))), deltas.append)
    for token in tokens:
        detokenizer.token(0, token, None)
    detokenizer.end(0, "stop")
    assert joined_text(deltas) == text * 300
    assert decoder.tokens < 12 * len(tokens)


@pytest.fixture
def sentencepiece(tiny: LoadedHF) -> Renderer:
    """A renderer whose tokenizer falls back to bytes, which are decoded together."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "a",
        "\u2581",
        "b",
    ]
    model = BPE({piece: at for at, piece in enumerate(pieces)}, [], byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = DecoderSequence(
        [Replace("\u2581", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        chat_template=tiny.renderer.tokenizer.chat_template,
    )
    return Renderer(fast, [2])


def test_bytes_that_are_decoded_together_are_text_once_they_are_complete(
    sentencepiece: Renderer,
) -> None:
    def tokens_of(*pieces: str | bytes) -> list[int]:
        encode = sentencepiece.tokenizer.convert_tokens_to_ids
        names = (
            [f"<0x{byte:02X}>" for byte in one] if isinstance(one, bytes) else [one]
            for one in pieces
        )
        return [encode(name) for piece in names for name in piece]

    tokens = tokens_of("\u2581", "a", b"\n", "\u2581", "\N{GRINNING FACE}".encode() * 2, "b")
    assert "".join(texts_of(sentencepiece, tokens)) == sentencepiece.decode(tokens)
    # An invalid byte spoils all bytes before it, were they not emitted yet.
    tokens = tokens_of("a", b"\n", b"\xff", "\u2581", "b", b"\n", "a")
    assert "".join(texts_of(sentencepiece, tokens)) == "a\n\ufffd b\na"
