"""The benchmark of long prompts: its bounds hold for the longest prompt, over medians."""

from typing import Any

from benchmarks import long_prompts
from benchmarks.long_prompt import LLAMA_CPP, OURS


def run(answer_s: float, beyond_idle_mb: float) -> dict[str, Any]:
    """The measurements of a process: a short prompt that breaks no bound, and a long one."""
    return {
        "512": {"first_s": 0.1, "answer_s": 0.1, "beyond_idle_mb": 10.0},
        "7900": {"first_s": 1.0, "answer_s": answer_s, "beyond_idle_mb": beyond_idle_mb},
    }


def broken(*ours: dict[str, Any]) -> list[str]:
    return long_prompts.broken(long_prompts.medians({OURS: [*ours], LLAMA_CPP: [run(10.0, 50.0)]}))


def test_bounds_that_are_kept_and_broken() -> None:
    assert broken(run(14.9, 1400.0)) == []
    assert broken(run(15.1, 1400.0)) == ["over 1.5 × llama.cpp's time"]
    assert broken(run(14.9, 1501.0)) == ["over 1,500 MB beyond idle"]


def test_one_slow_round_breaks_nothing() -> None:
    assert broken(run(14.0, 100.0), run(99.0, 9000.0), run(14.5, 100.0)) == []
