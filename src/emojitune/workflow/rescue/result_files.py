"""Result files, which OpenAI sends as base64 of a CSV file."""

import base64
import binascii
from typing import IO

_BLOCK = 1 << 18  # a multiple of 4 characters, which are 3 bytes


def decode_csv(content: IO[bytes], out: IO[bytes]) -> bool:
    """Decode a result file; False if it is not base64, and then `out` is of no use."""
    left, size = b"", 0
    while block := content.read(_BLOCK):
        left += block.translate(None, b"\r\n")
        whole = len(left) // 4 * 4
        try:
            size += out.write(base64.b64decode(left[:whole], validate=True))
        except binascii.Error:
            return False
        left = left[whole:]
    return size > 0 and not left
