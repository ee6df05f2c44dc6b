from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, decoders

from emojitune.models.loader import LoadedHF
from emojitune.models.token_bytes import TokenBytes


@pytest.mark.parametrize("text", ["plain text", "é 日本語 🎉\n\t", "\x00\x7f\xad", "<|im_end|>"])
def test_the_bytes_of_tokens_spell_their_text(tiny: LoadedHF, text: str) -> None:
    tokens = [tiny.renderer.token_bytes(token) for token in tiny.renderer.encode_text(text)]
    assert b"".join(spelled or b"" for _, spelled in tokens).decode() == text


def test_all_bytes_are_known(tiny: LoadedHF) -> None:
    singles = {own for token in range(365) if (own := tiny.renderer.token_bytes(token)[1])}
    assert {bytes([byte]) for byte in range(256)} <= singles


def test_a_special_token_has_a_name_and_no_bytes(tiny: LoadedHF) -> None:
    assert tiny.renderer.token_bytes(2) == ("<|im_end|>", None)


def test_a_piece_of_a_character_is_shown_as_unknown(tiny: LoadedHF) -> None:
    first, *_ = tiny.renderer.encode_text("日")
    shown, own = tiny.renderer.token_bytes(first)
    assert (shown, own) == ("\ufffd", "日".encode()[:1])


def test_tokenizers_that_mark_words_and_bytes() -> None:
    pieces = {0: "\u2581the", 1: "<0xE6>", 2: "é", 3: "<tool>"}
    tokenizer: Any = SimpleNamespace(
        added_tokens_decoder={3: AddedToken("<tool>", special=False)},
        backend_tokenizer=SimpleNamespace(decoder=decoders.ByteFallback()),
        convert_ids_to_tokens=pieces.__getitem__,
    )
    token_bytes = TokenBytes(tokenizer)
    assert [token_bytes.lookup(token)[1] for token in pieces] == [
        b" the",
        b"\xe6",
        "é".encode(),
        b"<tool>",
    ]
