"""What a JSON text costs to parse, known before it is parsed.

A parser holds Python's lock until it is done, and with it the event loop of every other request.
Bytes alone say little: a megabyte of empty arrays takes a hundred times as long to parse and to
validate, and a hundred times the memory, as a megabyte of text.
"""

import numpy as np

# What each of these characters costs outside of strings, where it stands for a value, for a key,
# for an array or for an object, in the time that a value takes. Objects become models, which each
# collection of garbage visits while all others wait.
_COSTS = {b",": 1, b":": 3, b"[": 10, b"{": 20}
MAX_COST = 350_000  # about 40 ms; the 300,000 token ids of a request for embeddings fit
MAX_DIGITS = 500  # of a number: the time to read one grows with their square
_SLICE_BYTES = 2**18  # scanned at a time, which takes a millisecond
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)


def excess(body: bytes) -> str | None:
    """What a JSON text has too much of; None if it can be parsed in a short time."""
    # Characters in strings do not count, but are told apart only where all together are too many.
    if _excess(body) is None:
        return None
    return _excess(_outside_strings(body))


def _excess(text: bytes) -> str | None:
    if b"0" * (MAX_DIGITS + 1) in text.translate(_AS_ZEROS):
        return f"a number of more than {MAX_DIGITS} digits"
    cost = sum(text.count(character) * units for character, units in _COSTS.items())
    if cost <= MAX_COST:
        return None
    return (
        "too many values: each counts 1, each key 3 more, each array 10 and each object 20 more, "
        f"together at most {MAX_COST}, and here they are {cost}"
    )


def _outside_strings(body: bytes) -> bytes:
    """A JSON text without the content of its strings."""
    kept = []
    inside, backslashes = False, 0  # at the start of a slice; backslashes just before it
    for start in range(0, len(body), _SLICE_BYTES):
        chunk = np.frombuffer(body, np.uint8, min(_SLICE_BYTES, len(body) - start), start)
        places = np.arange(len(chunk))
        last_other = np.maximum.accumulate(np.where(chunk == _BACKSLASH, -1, places))
        run = places - last_other  # of backslashes that end at a place
        run[last_other < 0] += backslashes
        before = np.concatenate([[backslashes], run[:-1]])
        quotes = (chunk == _QUOTE) & (before % 2 == 0)
        in_string = (np.cumsum(quotes) + inside) % 2 == 1
        kept.append(chunk[~in_string].tobytes())
        inside, backslashes = bool(in_string[-1]), int(run[-1])
    return b"".join(kept)
