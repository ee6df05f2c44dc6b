"""What a label is: its grammar, the vocabulary, and the emoji that each stands for.

Knows nothing of files of examples, models or tokens.
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
    """Whether `text` is one bare label such as `(party)`: the style, whatever the vocabulary."""
    return _LABEL.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class LabelMeaning:
    """One row of `emoji_labels.csv`."""

    label: str
    emoji: str
    meaning: str
    keywords: str  # other words for it, as one text


@cache
def label_meanings() -> dict[str, LabelMeaning]:
    """All labels that ship with the package, by label."""
    text = (files("emojitune") / "emoji_labels.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row["label"]: LabelMeaning(**row) for row in rows}


def to_emoji(text: str) -> str:
    """`text` with every known label replaced by its emoji; unknown labels stay as they are."""
    known = label_meanings()
    return _LABEL.sub(lambda m: known[m[0]].emoji if m[0] in known else m[0], text)


def vocabulary_of(replies: Iterable[str]) -> tuple[str, ...]:
    """The distinct replies, sorted: the closed set that a tuned model may be held to."""
    return tuple(sorted(set(replies)))
