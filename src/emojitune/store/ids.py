"""Ids and times in OpenAI's format."""

import secrets
import string
import time

_ALPHANUMERICS = string.ascii_letters + string.digits


def new_id(prefix: str, length: int = 24) -> str:
    """`prefix` and `length` random letters and digits."""
    return prefix + "".join(secrets.choice(_ALPHANUMERICS) for _ in range(length))


def now() -> int:
    """Unix seconds."""
    return int(time.time())
