"""Training files: for any bytes, the report is complete and the repaired copy is valid."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api_requests import mutated_bytes
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from schema_values import any_value, mutated, texts

from emojitune.dataset.parse import parse_line, read_lines
from emojitune.dataset.repair import repair
from emojitune.dataset.rules import RULES
from emojitune.dataset.validation import check_file

_ROLES = st.sampled_from(["system", "user", "user", "user", "assistant", "developer", "tool"])
_REPLIES = st.sampled_from(["(party)", " (party) ", "party", "(Party)", "(devil)", "", "Hello!"])
_ENDS = st.sampled_from([*[b"\n"] * 6, b"\r\n", b"\r\n", b"\r", b"\n\n", b"\xe2\x80\xa8", b""])
_MARKS = st.sampled_from([*[b""] * 7, b"\xef\xbb\xbf", b"\xef\xbb\xbf" * 2, b"\xff\xfe"])
_NAMES = st.sampled_from(["weather", "weather", "lamp", "the lamp", ""])
_ARGUMENTS = st.one_of(
    st.sampled_from(["{}", '{"place":"Oslo"}', '{"a\u200b": "Ã©"}', r'{"a": "\ud83d"}', "[]", "{"]),
    texts,
)
_TOOLS = st.one_of(
    st.just([{"type": "function", "function": {"name": "weather", "description": "Wind, rain"}}]),
    any_value,
)


@st.composite
def cases(draw: DrawFn) -> bytes:
    """The bytes of a training file, with hardly a valid line."""
    content = draw(_MARKS)
    for _ in range(draw(st.integers(0, 4))):
        line = json.dumps(draw(mutated(_rows())), ensure_ascii=draw(st.booleans()))
        raw = line.encode("utf-8", "surrogatepass")
        content += draw(mutated_bytes(raw)) if draw(st.integers(0, 5)) == 0 else raw
        content += draw(_ENDS)
    return content


@st.composite
def _rows(draw: DrawFn) -> dict[str, Any]:
    turns = draw(st.lists(_messages(_ROLES, texts), max_size=2))
    reply = draw(_messages(st.just("assistant"), st.one_of(_REPLIES, _REPLIES, texts)))
    calls = draw(_calls()) if draw(st.integers(0, 2)) == 0 else []
    row = {"messages": [*turns, *calls, reply]}
    return {**row, "tools": draw(_TOOLS)} if calls or draw(st.integers(0, 9)) == 0 else row


@st.composite
def _calls(draw: DrawFn) -> list[dict[str, Any]]:
    """A tool call and its result."""
    function = {"name": draw(_NAMES), "arguments": draw(_ARGUMENTS)}
    call = {"id": draw(texts), "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": draw(texts)},
    ]


@st.composite
def _messages(
    draw: DrawFn, roles: SearchStrategy[str], contents: SearchStrategy[str]
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": draw(roles), "content": draw(contents)}
    more: Mapping[str, SearchStrategy[Any]] = {
        "weight": st.sampled_from([0, 0, 1, 1, 1, 2, "1", True, 1.0, None]),
        "name": texts,
        "tool_calls": any_value,
    }
    for key in draw(st.lists(st.sampled_from(sorted(more)), max_size=1)):
        message[key] = draw(more[key])
    return message


def violations(content: bytes) -> list[str]:
    """The checker's promises that it breaks for a file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.jsonl"
        path.write_bytes(content)
        try:
            return [*_of_lines(path), *_of_repair(path, Path(folder) / "repaired.jsonl")]
        except Exception as error:  # no contents may raise
            return [f"{type(error).__name__}: {error}"]


def _of_lines(path: Path) -> list[str]:
    found = []
    for number, raw in read_lines(path):
        issues: list[Any] = []
        example = parse_line(number, raw, issues)
        wrong = [one for one in issues if one.severity == "error" or one.code == "blank_line"]
        if (example is None) != bool(wrong):
            found.append(f"line {number} is usable and has errors, or neither: {issues}")
        again = example and parse_line(2, example.to_json().encode(), [])
        if example and not (again and again.conversation == example.conversation):
            found.append(f"line {number} does not come back from JSON: {example}")
    for issue in check_file(path, context_tokens=8192).issues:
        if issue.code not in RULES or not issue.message or not issue.advice:
            found.append(f"an issue that says too little: {issue}")
        (issue.message + issue.advice).encode()
    return found


def _of_repair(path: Path, copy: Path) -> list[str]:
    repaired = repair(check_file(path))
    copy.write_text("".join(f"{line}\n" for line in repaired.lines), encoding="utf-8", newline="")
    report = check_file(copy, minimum_examples=0)
    if len(report.examples) != len(repaired.lines):
        return [f"a repaired line is unusable: {report.errors}"]
    if repair(report).changes:
        return [f"repairing is never done: {repair(report).changes}"]
    return []
