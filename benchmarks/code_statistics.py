"""Sizes of the code: modules, folders and functions, as one row of a Markdown table per tree.

    python -m benchmarks.code_statistics [TREE ...]

A tree is a folder of Python modules, `src` by default. Several are compared line by line: two
checkouts, say. Lines are those of the files, with docstrings and comments.
"""

import ast
import sys
from collections import Counter
from pathlib import Path
from statistics import median, quantiles

_HEAD = (
    "| tree | modules | lines | module median / p95 / max | functions | "
    "function median / p95 / max | largest folder |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Print the table of the trees on the command line."""
    print(_HEAD)
    for tree in sys.argv[1:] or ["src"]:
        print(_row(Path(tree)))


def _row(tree: Path) -> str:
    files = sorted(tree.rglob("*.py"))
    sources = [file.read_text(encoding="utf-8") for file in files]
    lines = [source.count("\n") for source in sources]
    functions = [size for source in sources for size in _function_sizes(source)]
    folders = Counter(file.parent for file in files if file.name != "__init__.py")
    largest, count = folders.most_common(1)[0]
    return (
        f"| {tree} | {len(files)} | {sum(lines)} | {_spread(lines)} | {len(functions)} | "
        f"{_spread(functions)} | {largest.relative_to(tree)} ({count}) |"
    )


def _function_sizes(source: str) -> list[int]:
    """Lines of each function, from its `def` to its end."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


def _spread(sizes: list[int]) -> str:
    return f"{median(sizes):.0f} / {quantiles(sizes, n=20)[-1]:.0f} / {max(sizes)}"


if __name__ == "__main__":
    main()
