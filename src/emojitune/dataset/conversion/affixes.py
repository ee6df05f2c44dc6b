"""Separators and stop sequences of OpenAI's prompt-completion format, which chats do without.

There, prompts ended with a separator and completions with a stop sequence, and completions began
with white space. Each is removed only where all rows have it, and where it can be nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from emojitune.dataset.formats import PROMPT_COMPLETION, detect_format
from emojitune.dataset.rules import preview

_MAX_LENGTH = 80
# A line of signs or `Answer:` at the end; an arrow; a row of signs; line ends.
_SEPARATOR = re.compile(
    r"\s*\n\s*(?:[^\w\s]+|\w[\w ]{0,20}:)\s*$|\s*[-=~]+>\s*$|\s*(?:#{2,}|={2,}|-{3,})\s*$|\s*\n\s*$"
)
_STOP = re.compile(r"\s*(?:\b(?:END|STOP)\b|#{2,}|<\|\w+\|>|</s>|\n)\s*$")


@dataclass(frozen=True, slots=True)
class Affixes:
    """The common suffix of a file's prompts and that of its completions; "" without any."""

    separator: str
    stop: str

    @staticmethod
    def from_rows(rows: Iterable[Mapping[str, Any]]) -> "Affixes":
        """Find the affixes in the rows that are prompts and completions."""
        pairs = [
            (row.get("prompt"), row.get("completion"))
            for row in rows
            if detect_format(row) is PROMPT_COMPLETION
        ]
        texts = [pair for pair in pairs if all(isinstance(text, str) for text in pair)]
        prompts, completions = zip(*texts, strict=True) if texts else ((), ())
        return Affixes(_common_suffix(_SEPARATOR, prompts), _common_suffix(_STOP, completions))

    def strip_prompt(self, text: str, dropped: list[str]) -> str:
        """A prompt without its separator; adds to `dropped` what was removed."""
        if self.separator:
            dropped.append(f"the separator {preview(self.separator)} after the prompt")
        return text.removesuffix(self.separator)

    def strip_completion(self, text: str, dropped: list[str]) -> str:
        """A completion without its stop sequence and without white space at its start."""
        if self.stop:
            dropped.append(f"the stop {preview(self.stop)} after the completion")
        text = text.removesuffix(self.stop)
        if text != text.lstrip():
            dropped.append("the white space before the completion")
        return text.lstrip()


def _common_suffix(pattern: re.Pattern[str], texts: Sequence[str]) -> str:
    """The part of the common suffix of all texts that matches the pattern."""
    reversed_texts = [text[: -_MAX_LENGTH - 1 : -1] for text in texts]
    # A prefix of both the first and the last text in sorted order is a prefix of all.
    extremes = zip(min(reversed_texts, default=""), max(reversed_texts, default=""), strict=False)
    shared = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], extremes))
    match = pattern.search(shared[::-1])
    return match[0] if match else ""
