"""What prompts and completions end with in the format that had no roles, and chats don't need.

A separator told a model where the prompt ends, a stop where the completion does, and a completion
began with white space. Each is taken off only where all rows have it, and it can be nothing else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from emojitune.dataset.formats import PROMPT_COMPLETION, detect_format
from emojitune.dataset.rules import preview

_LONGEST = 80
# A line of signs or `Answer:` at the end; an arrow; a row of signs; line ends.
_SEPARATOR = re.compile(
    r"\s*\n\s*(?:[^\w\s]+|\w[\w ]{0,20}:)\s*$|\s*[-=~]+>\s*$|\s*(?:#{2,}|={2,}|-{3,})\s*$|\s*\n\s*$"
)
_STOP = re.compile(r"\s*(?:\b(?:END|STOP)\b|#{2,}|<\|\w+\|>|</s>|\n)\s*$")


@dataclass(frozen=True, slots=True)
class Affixes:
    """What all prompts of a file end with, and all completions; "" where there is nothing."""

    separator: str
    stop: str

    @staticmethod
    def of(rows: Iterable[Mapping[str, Any]]) -> "Affixes":
        pairs = [
            (row.get("prompt"), row.get("completion"))
            for row in rows
            if detect_format(row) is PROMPT_COMPLETION
        ]
        texts = [(asked, said) for asked, said in pairs if _are_texts(asked, said)]
        prompts, completions = zip(*texts, strict=True) if texts else ((), ())
        return Affixes(_shared(_SEPARATOR, prompts), _shared(_STOP, completions))

    def prompt(self, text: str, dropped: list[str]) -> str:
        """A prompt without its separator; `dropped` is told what was taken off."""
        if self.separator:
            dropped.append(f"the separator {preview(self.separator)} after the prompt")
        return text.removesuffix(self.separator)

    def completion(self, text: str, dropped: list[str]) -> str:
        """A completion without its stop and the white space it begins with."""
        if self.stop:
            dropped.append(f"the stop {preview(self.stop)} after the completion")
        text = text.removesuffix(self.stop)
        if text != text.lstrip():
            dropped.append("the white space before the completion")
        return text.lstrip()


def _are_texts(*found: object) -> bool:
    return all(isinstance(one, str) for one in found)


def _shared(pattern: re.Pattern[str], texts: Sequence[str]) -> str:
    """What all texts end with, as far as it is of that pattern."""
    backwards = [text[: -_LONGEST - 1 : -1] for text in texts]
    extremes = zip(min(backwards, default=""), max(backwards, default=""), strict=False)
    shared = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], extremes))
    found = pattern.search(shared[::-1])
    return found[0] if found else ""
