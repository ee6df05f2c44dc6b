"""`emojitune data` on files in practice, and as other programs write them."""

import bz2
import errno
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from commands import RunCommand
from fake_api import MODEL, FakeApi

from emojitune.cli import paths
from emojitune.workflow import fine_tune

BROKEN = Path(__file__).parents[1] / "data" / "broken"
MARK = "\ufeff"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def chat(number: int, *more: dict[str, Any], **keys: Any) -> dict[str, Any]:
    question = {"role": "user", "content": f"word{number} and thing{number}"}
    reply = {"role": "assistant", "content": f"It is word{number} of all."}
    return {"messages": [question, reply, *more], **keys}


def write(name: str, rows: list[dict[str, Any]], end: str = "\n") -> Path:
    path = Path(name)
    path.write_bytes("".join(json.dumps(row) + end for row in rows).encode())
    return path


def test_null_is_the_same_as_a_missing_key(emojitune: RunCommand) -> None:
    none = dict.fromkeys(("name", "tool_calls", "tool_call_id", "function_call", "weight"))
    rows = [chat(number, tools=None, parallel_tool_calls=None, id=None) for number in range(12)]
    for row in rows:
        row["messages"] = [{**none, **message} for message in row["messages"]]
    file = write("f.jsonl", rows)
    assert json.loads(emojitune("data", "check", file, "--strict", "--json").out)["issues"] == []
    assert emojitune("data", "check", file, "--fix").code == 0
    assert Path("f.fixed.jsonl").read_bytes() == file.read_bytes()
    rows[3]["messages"][1]["content"] += " "
    write("padded.jsonl", rows)
    assert emojitune("data", "check", "padded.jsonl", "--fix").code == 0
    copy = Path("padded.fixed.jsonl").read_text().splitlines()
    assert json.loads(copy[3]) == chat(3)


def test_null_is_a_value_in_a_schema_or_an_argument(emojitune: RunCommand) -> None:
    parameters = {
        "type": "object",
        "properties": {
            "at": {"type": ["string", "null"], "default": None},
            "of": None,
            "as": {"enum": ["a", None], "examples": [{"a": None}]},
        },
    }
    function = {"name": "f", "arguments": '{"at": null}'}
    called = {"role": "assistant", "content": None, "tool_calls": [
        {"id": "a", "type": "function", "index": None, "function": function}]}  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    file = write("f.jsonl", [{"messages": [chat(1)["messages"][0], called], "tools": [tool]}])
    system, _, reply = json.loads(emojitune("data", "show", 1, file, "--json").out)["messages"]
    del parameters["properties"]["of"]  # type: ignore[attr-defined]
    assert json.dumps(parameters) in system["content"]
    assert '"arguments": {"at": null}' in reply["content"]


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_a_byte_order_mark_and_blank_lines_are_skipped(emojitune: RunCommand, end: str) -> None:
    rows = [json.dumps(chat(number)) for number in range(12)]
    text = MARK + end.join([*rows[:5], "", *rows[5:], "", "", ""])
    Path("f.jsonl").write_bytes(text.encode())
    done = emojitune("data", "check", "f.jsonl", "--strict")
    assert done.code == 0
    assert "note [byte_order_mark]: Example 1 starts with" in done.out
    assert "note [blank_line]: Example 6 is a blank line" in done.out
    assert "12 usable example(s), 0 error(s), 0 warning(s), 4 note(s)" in done.out
    assert "6 is a blank line" in emojitune("data", "show", 6, "f.jsonl").err
    assert emojitune("data", "check", "f.jsonl", "--fix").code == 0
    assert Path("f.fixed.jsonl").read_text() == "".join(row + "\n" for row in rows)
    assert emojitune("data", "split", "f.jsonl").code == 0
    parts = [Path(f"f.{part}.jsonl").read_text() for part in ("train", "valid")]
    assert sorted("".join(parts).splitlines()) == sorted(rows)


def test_a_byte_order_mark_within_a_file_is_an_error_that_fix_repairs(
    emojitune: RunCommand,
) -> None:
    rows = [json.dumps(chat(number)) for number in range(12)]
    Path("f.jsonl").write_text("\n".join([*rows[:6], MARK + rows[6], *rows[7:]]))
    done = emojitune("data", "check", "f.jsonl", "--fix")
    assert done.code == 0
    assert "belongs at the start of a file only (line 7). Take it out" in done.out
    assert Path("f.fixed.jsonl").read_text() == "".join(row + "\n" for row in rows)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("{}\n{}\n".encode("utf-16"), "not_utf8", "is UTF-16, and must be JSON lines in UTF-8"),
        ("{}\n{}\n".encode("utf-16-be"), "not_utf8", "is UTF-16, and must be JSON lines in UTF-8"),
        (gzip.compress(b"{}\n", mtime=0), "not_utf8", "is compressed with gzip"),
        (bz2.compress(b"{}\n"), "not_utf8", "is compressed with bzip2"),
        (lzma.compress(b"{}\n"), "not_utf8", "is compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "not_utf8", "is compressed with Zstandard"),
        (b'[\n {"a": 1},\n {"a": 2}\n]\n', "other_format", "is one JSON list"),
        (b'\xef\xbb\xbf\n[{"a": 1}]', "other_format", "is one JSON list"),
        (b"prompt,completion\na,b\n", "other_format", "is CSV"),
    ],
    ids=[
        "utf_16",
        "utf_16_without_mark",
        "gzip",
        "bzip2",
        "xz",
        "zstd",
        "list",
        "list_in_a_line",
        "csv",
    ],
)
def test_a_file_that_is_not_json_lines_has_one_error(
    emojitune: RunCommand, content: bytes, code: str, words: str
) -> None:
    Path("f").write_bytes(content)
    done = emojitune("data", "check", "f", "--fix", "--json")
    assert done.code == 1
    (issue,) = json.loads(done.out)["issues"]
    assert issue["code"] == code
    assert words in issue["message"]
    assert f"Error [{code}]" in done.err
    assert [path.name for path in Path().iterdir()] == ["f"]


def test_fix_repairs_a_file_without_a_usable_line(emojitune: RunCommand) -> None:
    thanks = {"role": "user", "content": "Thanks!"}
    file = write("f.jsonl", [chat(number, thanks) for number in range(12)])
    done = emojitune("data", "check", file, "--fix")
    assert done.code == 0
    assert Path("f.fixed.jsonl").read_text() == "".join(
        json.dumps(chat(number)) + "\n" for number in range(12)
    )


def test_fix_writes_nothing_if_nothing_can_be_repaired(emojitune: RunCommand) -> None:
    Path("f.jsonl").write_text("{\n" * 12)
    done = emojitune("data", "check", "f.jsonl", "--fix")
    assert done.code == 1
    assert "--fix wrote nothing" in done.out
    assert [path.name for path in Path().iterdir()] == ["f.jsonl"]


def test_the_cause_is_reported_first_and_each_line_once(emojitune: RunCommand) -> None:
    rows = [chat(number) for number in range(12)]
    for row in rows:
        row["messages"] = [{**message, "a": 1, "b": 2} for message in row["messages"]]
    done = emojitune("data", "check", write("f.jsonl", rows))
    first, *_, last, _ = done.out.splitlines()
    assert first.startswith("error [extra_key]: Example 1, message 1")
    assert "45 more [extra_key]: lines 1, 2, 3, 4, 5, 6, 7, 8 and 4 more" in done.out
    assert last.startswith("error [invalid_n_examples]")
    assert done.err.startswith("Error [extra_key]: f.jsonl cannot be used for training: 49 error")
    issues = json.loads(emojitune("data", "check", "f.jsonl", "--json").out)["issues"]
    assert [issue["code"] for issue in issues] == ["extra_key"] * 48 + ["invalid_n_examples"]


# --- standard input ---


def piped() -> bytes:
    return "".join(json.dumps(chat(number)) + "\n" for number in range(12)).encode()


def test_every_data_command_reads_standard_input_for_a_dash(emojitune: RunCommand) -> None:
    lines = piped()
    checked = emojitune("data", "check", "-", stdin=lines)
    assert checked.code == 0
    assert "standard input: 12 usable example(s)" in checked.out
    assert "12 examples" in emojitune("data", "stats", "-", stdin=lines).out
    assert "word2" in emojitune("data", "show", 3, "-", stdin=lines).out
    assert "standard input has no line 13" in emojitune("data", "show", 13, "-", stdin=lines).err
    Path("f.jsonl").write_bytes(lines)
    both = emojitune("data", "check", "f.jsonl", "--valid", "-", "--json", stdin=lines)
    assert json.loads(both.out)["leaked"] == 12
    twice = emojitune("data", "check", "-", "--valid", "-", stdin=lines)
    assert twice.code == 1
    assert "Standard input can be read for one file" in twice.err
    bad = emojitune("data", "check", "-", stdin=b"{\n")
    assert "Error [invalid_json]: standard input cannot be used" in bad.err


def test_output_for_standard_input_goes_to_the_working_folder(emojitune: RunCommand) -> None:
    assert emojitune("data", "split", "-", stdin=piped()).code == 0
    assert emojitune("data", "check", "-", "--fix", stdin=b"\n" + piped()).code == 0
    assert Path("stdin.fixed.jsonl").read_bytes() == piped()
    assert sorted(path.name for path in Path().iterdir()) == [
        *("stdin.fixed.jsonl", "stdin.fixed.txt", "stdin.train.jsonl", "stdin.valid.jsonl"),
    ]


def test_run_and_evaluate_read_standard_input(
    emojitune: RunCommand, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setitem(fine_tune.follow.__kwdefaults__, "sleep", lambda seconds: None)
    Path("valid.jsonl").write_bytes(piped())
    fake_provider = ("--provider", fake_api.url)
    done = emojitune("run", "--train", "-", "--valid", "valid.jsonl", *fake_provider, stdin=piped())
    assert done.code == 0
    assert "Uploaded standard input as" in done.out
    assert piped() in fake_api.uploaded
    assert b'filename="stdin.jsonl"' in fake_api.uploaded
    scored = emojitune("evaluate", MODEL, "--data", "-", "--json", *fake_provider, stdin=piped())
    assert scored.code == 0
    assert json.loads(scored.out)["scores"]


# --- convert ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sharegpt", "ShareGPT ('conversations' of 'from' and 'value')"),
        ("alpaca", "Alpaca ('instruction', 'input' and 'output')"),
        ("prompt_completion", "prompt and completion ('prompt' and 'completion')"),
        ("tools_in_a_string", "chat with tools of another form"),
        ("comma_separated", "CSV"),
    ],
)
def test_another_format_is_named_and_converted(
    emojitune: RunCommand, name: str, words: str
) -> None:
    file = Path(f"{name}.jsonl")
    file.write_bytes((BROKEN / file.name).read_bytes())
    checked = emojitune("data", "check", file)
    assert checked.code == 1
    (shown,) = [line for line in checked.out.splitlines() if "other_format" in line]
    assert words in shown
    assert shown.endswith("Run `emojitune data convert FILE`: it makes chat lines of it.")
    assert "Error [other_format]" in checked.err
    done = emojitune("data", "convert", file)
    assert done.code == 0
    assert f"emojitune data check {name}.chat.jsonl" in done.out
    assert emojitune("data", "check", f"{name}.chat.jsonl").code == 0


def test_each_row_is_accounted_for(emojitune: RunCommand) -> None:
    rows = [{"instruction": f"Say {n}", "output": f"{n}", "id": n} for n in range(11)]
    rows += [{"instruction": "Say nothing"} for _ in range(25)]
    file = write("f.json", rows)
    shown = emojitune("data", "convert", file, "--output", "one.jsonl")
    assert "f.json: 36 row(s): 36 Alpaca" in shown.out
    assert 'not carried over: the key "id" (11 row(s))' in shown.out
    assert "left out, line 12: message 2 needs a 'content' of text, not null." in shown.out
    assert "... and 5 more left out; --json lists all" in shown.out
    assert "one.jsonl: 11 chat line(s), 25 row(s) left out" in shown.out
    account = json.loads(emojitune("data", "convert", "-", "--json", stdin=file.read_bytes()).out)
    assert (account["path"], account["converted"]) == ("stdin.chat.jsonl", 11)
    assert [row["line"] for row in account["left_out"]] == list(range(12, 37))
    assert account["not_carried_over"] == {'the key "id"': 11}
    assert Path("one.jsonl").read_bytes() == Path("stdin.chat.jsonl").read_bytes()


def test_convert_overwrites_nothing_and_leaves_no_partial_file(emojitune: RunCommand) -> None:
    file = write("f.jsonl", [{"prompt": "a", "completion": "b"}])
    before = file.read_bytes()
    over = emojitune("data", "convert", file, "--output", file)
    assert (over.code, file.read_bytes()) == (1, before)
    assert "f.jsonl exists already. Nothing is overwritten" in over.err
    nowhere = emojitune("data", "convert", file, "--output", "gone/f.jsonl")
    assert "cannot be written (No such file or directory)" in nowhere.err
    assert "--output must name a file" in emojitune("data", "convert", file, "--output", "-").err
    assert "cannot be read" in emojitune("data", "convert", "gone.jsonl").err
    assert [path.name for path in Path().iterdir()] == ["f.jsonl"]


def test_a_full_disk_leaves_no_partial_file(
    emojitune: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paths, "fsync", full)
    done = emojitune("data", "convert", write("f.jsonl", [{"prompt": "a", "completion": "b"}]))
    assert done.code == 1
    assert "f.chat.jsonl cannot be written (No space left on device)." in done.err
    assert [path.name for path in Path().iterdir()] == ["f.jsonl"]


def test_convert_reports_that_there_is_nothing_to_convert(emojitune: RunCommand) -> None:
    done = emojitune("data", "convert", write("f.jsonl", [chat(1), {"question": 1}]))
    assert done.code == 1
    assert "f.jsonl is in the chat format already." in done.err
    write("g.jsonl", [{"question": 1}])
    none = emojitune("data", "convert", "g.jsonl", "--json")
    assert none.code == 1
    assert "g.jsonl has no row that can be converted to a chat line." in none.err
    assert json.loads(none.out)["left_out"][0]["line"] == 1
    assert not Path("g.chat.jsonl").exists()


def test_nothing_is_written_if_one_of_two_files_exists(emojitune: RunCommand) -> None:
    file = write("a.jsonl", [chat(number, extra=1) for number in range(12)])
    Path("a.fixed.txt").touch()
    Path("a.valid.jsonl").touch()
    before = sorted(Path().iterdir())
    for command in (("data", "check", "--fix", file), ("data", "split", file)):
        assert emojitune(*command).code == 1
        assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("path", ["/", "."])
def test_a_folder_cannot_be_converted(emojitune: RunCommand, path: str) -> None:
    done = emojitune("data", "convert", path)
    assert done.code == 1
    assert "cannot be read" in done.err
