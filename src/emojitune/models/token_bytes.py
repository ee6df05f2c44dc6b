"""The bytes of single tokens, which may be only a part of a character."""

import re
from functools import cached_property
from typing import Any

from tokenizers.decoders import ByteLevel

_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


class TokenBytes:
    """The tokens of one tokenizer as text and as bytes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = tokenizer.added_tokens_decoder
        self._byte_level = isinstance(tokenizer.backend_tokenizer.decoder, ByteLevel)

    @cached_property
    def max_token_length(self) -> int:
        """Length of the longest token in characters: an upper bound on characters per token."""
        return max(map(len, self._tokenizer.get_vocab()))

    def lookup(self, token: int) -> tuple[str, bytes | None]:
        """A token's text and bytes; None for the bytes of a special token, which adds no text."""
        if added := self._added.get(token):
            return added.content, None if added.special else added.content.encode()
        piece: str = self._tokenizer.convert_ids_to_tokens(token) or ""
        spelled = _from_byte_level(piece) if self._byte_level else _from_word_piece(piece)
        return spelled.decode(errors="replace"), spelled


def _from_byte_level(piece: str) -> bytes:
    return bytes(_BYTES[sign] for sign in piece)


def _from_word_piece(piece: str) -> bytes:
    if byte := _BYTE_TOKEN.fullmatch(piece):
        return bytes([int(byte[1], 16)])
    return piece.replace("\u2581", " ").encode()


def _byte_signs() -> dict[str, int]:
    """The characters by which byte-level tokenizers write bytes (Radford et al., 2019): printable
    bytes as themselves, the others in order from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    signs = {chr(0x100 + place): byte for place, byte in enumerate(hidden)}
    return signs | {chr(byte): byte for byte in printable}


_BYTES = _byte_signs()
