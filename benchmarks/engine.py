"""The border between the benchmark and an engine: its inputs and its replies.

Knows no engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reply_prompts import Prompt

MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, and the seconds from the request to its end."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready.

    Attributes:
        started: When its process was started, in seconds of `time.time`.
        pid: That process.
        ask: Replies to prompts, in their order, at a concurrency.
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
    """An engine's inputs: the model, the very first prompt, then prompts by concurrency."""

    tuned: Tuned
    first: Prompt
    levels: dict[int, Level]
