"""Subsets of a file of examples, for tests that should not take as long as all of it."""

import json
from collections.abc import Collection
from pathlib import Path


def write_some(source: Path, target: Path, labels: Collection[str], step: int = 1) -> Path:
    """Write every `step`-th example whose reply is one of these labels; return `target`."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    some = [line for line in lines if json.loads(line)["messages"][-1]["content"] in labels]
    target.write_text("".join(some[::step]), encoding="utf-8")
    return target
