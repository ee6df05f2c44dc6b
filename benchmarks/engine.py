"""What an engine is to the benchmark, what it is given, and what it tells.

Knows no engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reply_prompts import Prompt

MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply, and the seconds from asking to having it."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready.

    Attributes:
        started: When its process was started, in seconds of `time.time`.
        pid: That process.
        ask: Replies to prompts, in their order, so many of them asked for at the same time.
    """

    started: float
    pid: int
    ask: Callable[[Sequence[Prompt], int], list[Reply]]


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned model in all its forms: by its name at a server on `home`, and as files."""

    home: Path
    name: str
    merged: Path  # a folder, bf16
    q4_1: Path  # GGUF
    q8_0: Path  # GGUF


@dataclass(frozen=True, slots=True)
class Level:
    """Prompts for one concurrency: `warm_up` first, which do not count."""

    warm_up: list[Prompt]
    counted: list[Prompt]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an engine gets: the model, the first prompt of all, then prompts by concurrency."""

    tuned: Tuned
    first: Prompt
    levels: dict[int, Level]
