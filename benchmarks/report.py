"""The file of a benchmark's results: JSON, one for each."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

RESULTS = Path("benchmarks/results")


def write(path: Path, console: Console, found: dict[str, Any]) -> None:
    """Write the results, and print where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    console.print(f"Written to {path}.")
