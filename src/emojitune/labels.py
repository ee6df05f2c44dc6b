"""Labels: their grammar, the vocabulary, and the emoji and meaning of each.

Knows no training files, models or tokens.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SYSTEM_PROMPT = "You're a chatbot that only responds with emojis!"
SMOKE_TEST_PROMPT = "What the hell is going on?"

_LABEL = re.compile(r"\([a-z0-9_]+\)")


def is_label(text: str) -> bool:
    """Whether `text` is one label such as `(party)`, of any vocabulary."""
    return _LABEL.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """One row of `emoji_labels.csv`."""

    label: str
    emoji: str
    meaning: str
    keywords: str  # related words, as one text


@cache
def label_meanings() -> dict[str, LabelMeaning]:
    """The meanings of all labels in the package's vocabulary, by label."""
    text = (files("emojitune") / "emoji_labels.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row["label"]: LabelMeaning(**row) for row in rows}


def to_emoji(text: str) -> str:
    """Replace every known label in `text` by its emoji."""
    meanings = label_meanings()
    return _LABEL.sub(lambda m: meanings[m[0]].emoji if m[0] in meanings else m[0], text)


def vocabulary_of(replies: Iterable[str]) -> tuple[str, ...]:
    """The distinct replies, sorted: the vocabulary that a tuned model may be constrained to."""
    return tuple(sorted(set(replies)))
