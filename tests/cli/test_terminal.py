"""Terminals in practice: untrusted text, closed pipes, invalid bytes, a deleted folder."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import CommandResult, RunCommand
from fake_api import JOB, MODEL, FakeApi
from openai import OpenAI

from emojitune import __version__
from emojitune.cli import run as run_module
from emojitune.cli.render import Screen
from emojitune.settings import Settings
from emojitune.workflow import fine_tune
from emojitune.workflow.provider import Connection

CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback\r[bold]b[/bold] [link=http://x]l[/link]"
WHOLE = "👩‍💻 ❤️ é العربية"  # joined by U+200D, chosen by U+FE0F, and written from right to left
FOREIGN = f"{EVIL} {WHOLE}"
SHOWN = (
    r"\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eback\r[bold]b[/bold] [link=http://x]l[/link] "
    + WHOLE
)
NOT_UTF8 = "caf\udce9"  # how Python holds the bytes b"caf\xe9"


def examples(path: Path, *, said: str = "ordinary", reply: str = "(sad)") -> Path:
    pairs = [(f"{said} {n}", (reply, "(wave)")[n % 2]) for n in range(12)]
    messages = [
        [
            {"role": "system", "content": said},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        for question, answer in pairs
    ]
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return examples(tmp_path / "data.jsonl")


def in_a_process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emojitune.cli.main", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, **options)  # type: ignore[call-overload, no-any-return]


# --- text that would control a terminal ---


@pytest.fixture
def hostile(fake_api: FakeApi, fake_provider: tuple[str, str]) -> tuple[str, str]:
    """The options for a provider all of whose texts contain control characters."""
    job, events = fake_api.job, fake_api.events

    def foreign_job() -> dict[str, object]:
        return job() | {"model": FOREIGN, "user_provided_suffix": FOREIGN}

    def foreign_events() -> list[dict[str, object]]:
        return [one | {"message": FOREIGN, "level": FOREIGN} for one in events()]

    fake_api.job, fake_api.events = foreign_job, foreign_events  # type: ignore[method-assign, assignment]
    fake_api.reply = lambda request: FOREIGN
    fake_api.polls = 2
    return fake_provider


def texts(value: object) -> Iterator[str]:
    """Every string of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def assert_harmless(done: CommandResult) -> None:
    assert SHOWN in done.out + done.err
    assert not CONTROL.search(done.out + done.err)


@pytest.mark.parametrize(
    "command", [f"jobs {what}" for what in ("list", f"show {JOB}", f"events {JOB}")]
)
def test_text_from_a_provider_cannot_control_the_terminal(
    emojitune: RunCommand, hostile: tuple[str, str], command: str
) -> None:
    assert_harmless(emojitune(*command.split(), *hostile))
    done = emojitune(*command.split(), "--json", *hostile)
    assert_harmless(done)
    assert FOREIGN in texts(json.loads(done.out)), "JSON is what it was"


def test_a_followed_job_a_reply_or_a_run_cannot_control_the_terminal(
    emojitune: RunCommand, fake_api: FakeApi, hostile: tuple[str, str], data: Path
) -> None:
    fake_api.healthy = False  # one table of scores is enough
    assert_harmless(emojitune("chat", MODEL, "hi", *hostile))
    assert_harmless(emojitune("run", "--train", data, "--valid", data, *hostile))
    fake_api.final_status = "failed"
    fake_api.error = {"code": FOREIGN, "message": FOREIGN, "param": None}
    failed = emojitune("jobs", "follow", JOB, *hostile)
    assert failed.code == 1
    assert SHOWN in failed.err
    assert_harmless(failed)


def test_a_name_next_to_a_progress_bar_cannot_control_the_terminal() -> None:
    screen = Screen()
    screen.console = type(screen.console)(file=io.StringIO(), force_terminal=True, width=300)
    with screen.progress_bars() as update:
        update(FOREIGN, 1, 2)
    output = screen.console.file.getvalue()  # type: ignore[attr-defined]
    assert SHOWN in output
    assert not CONTROL.search(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", output)), (
        "but for rich's own"
    )


def test_a_file_or_its_name_cannot_control_the_terminal(
    emojitune: RunCommand, tmp_path: Path
) -> None:
    named = examples(tmp_path / FOREIGN.replace("/", ""), said=FOREIGN, reply=FOREIGN)
    for command in (("check", named), ("stats", named), ("show", 1, named)):
        done = emojitune("data", *command)
        assert done.code == 0
        assert not CONTROL.search(done.out + done.err)
        assert SHOWN.replace("/", "") in done.out.replace("/", "")
    done = emojitune("data", "stats", named, "--json")
    assert not CONTROL.search(done.out)
    assert FOREIGN in json.loads(done.out)["frequencies"]
    spare = emojitune("data", "show", 1, named, named)
    assert spare.code == 2
    assert not CONTROL.search(spare.err)


def test_a_line_feed_does_not_start_a_row_or_an_event(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str]
) -> None:
    job, events = fake_api.job, fake_api.events
    forged = "x\nforged"
    fake_api.job = lambda: job() | {"model": forged}  # type: ignore[method-assign]
    fake_api.events = lambda: [  # type: ignore[method-assign]
        one | {"message": forged} for one in events()
    ]
    for command in (("list",), ("show", JOB), ("events", JOB)):
        assert r"x\nforged" in emojitune("jobs", *command, *fake_provider).out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_json_is_complete_if_the_terminal_cannot_show_it(
    emojitune: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    emoji = "👩‍💻 é"
    file = examples(tmp_path / "data.jsonl", reply=emoji)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert emojitune("data", "stats", file, "--json").code == 0
    stdout.seek(0)
    assert emoji in json.load(stdout)["frequencies"]


# --- commands that can be pasted ---


def commands(output: str) -> list[list[str]]:
    """The printed commands, split as a shell does."""
    return [
        shlex.split(line[line.index("emojitune ") :])
        for line in output.splitlines()
        if "emojitune " in line
    ]


def test_printed_commands_are_quoted(
    emojitune: RunCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, copy = tmp_path / 'my home\'s "data"', tmp_path / "back up"
    emojitune("keys", "list", "--home", home)
    done = emojitune("backup", copy, "--home", home)
    assert commands(done.out) == [["emojitune", "serve", "--home", str(copy)]]
    with OpenAI(api_key="k") as client:
        connection = Connection(client, "local", is_emojitune=True)
        run_module._show_next_steps(connection, "my $model", Settings(home=home), Screen())
    output = capsys.readouterr().out
    assert commands(output) == [
        ["emojitune", "chat", "my $model", "--home", str(home)],
        ["emojitune", "serve", "--home", str(home)],
    ]
    assert re.search(r"open\((.*)\)\.read", output)[1] == json.dumps(str(home / "api_key"))  # type: ignore[index]


@pytest.mark.skipif(os.name != "posix", reason="a shell's quoting")
def test_an_unprintable_path_can_be_pasted(emojitune: RunCommand, tmp_path: Path) -> None:
    copy = tmp_path / f"a\x1b'b\\ {NOT_UTF8}"
    emojitune("keys", "list")
    done = emojitune("backup", copy)
    assert not CONTROL.search(done.out)
    [printed] = [line for line in done.out.splitlines() if "emojitune serve" in line]
    words = printed[printed.index("--home ") :]
    shown = subprocess.run(["bash", "-c", f"printf %s {words}"], stdout=subprocess.PIPE, check=True)
    assert shown.stdout == b"--home" + os.fsencode(copy)


def test_printed_commands_start_the_program_as_the_user_did(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "emojitune"
    script.parent.mkdir()
    code = f"#!{sys.executable}\nfrom emojitune.cli.main import main\nmain()\n"
    script.write_text(code)
    script.chmod(0o755)

    def see(path: str, *call: str) -> str:
        """The command that the message about a wrong one shows, after checking that it runs."""
        environment = {**os.environ, "PATH": path}
        at = {"cwd": tmp_path, "env": environment, "text": True}
        done = subprocess.run([*call, "nonsense"], stderr=subprocess.PIPE, **at)  # type: ignore[call-overload]
        command = done.stderr.split("See: ")[1]
        shown = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, **at)  # type: ignore[call-overload]
        assert "Usage: emojitune" in shown.stdout
        return str(command.strip())

    assert see("/usr/bin:/bin", "bin/emojitune") == "bin/emojitune --help"
    assert see(f"{script.parent}:/bin", str(script)) == "emojitune --help"
    module = (sys.executable, "-m", "emojitune.cli.main")
    assert see("/usr/bin:/bin", *module) == shlex.join((*module, "--help"))


def test_commands_in_messages_of_lower_layers_start_the_program_as_the_user_did(
    emojitune: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emojitune("keys", "list")
    monkeypatch.setattr("emojitune.cli.invocation.program", lambda: ".venv/bin/emojitune")
    assert "`.venv/bin/emojitune keys list`" in emojitune("keys", "revoke", "key_x").err


def test_a_lost_connection_prints_how_to_follow_the_job(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(fine_tune.follow.__kwdefaults__, "reconnect_seconds", 0)
    fake_api.drop = 1000
    done = emojitune("jobs", "follow", JOB, *fake_provider)
    assert done.code == 1
    assert f"The job {JOB} itself may still be running" in done.err
    assert ["emojitune", "jobs", "follow", JOB, *fake_provider] in commands(done.out)


# --- a deleted folder ---


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()


@pytest.mark.usefixtures("gone")
def test_in_a_deleted_folder(emojitune: RunCommand, data: Path) -> None:
    done = emojitune("data", "check", "missing.jsonl")
    assert done.code == 1
    assert "does not exist: missing.jsonl (the folder you are in no longer exists" in done.out
    assert emojitune("data", "check", data).code == 0
    emojitune("keys", "list")
    for command in (("backup", "copy"), ("models", "pull", "./model"), ("serve", "--port", 0)):
        done = emojitune(*command)
        assert done.code == 1
        assert done.err == (
            "Error: The folder you are in no longer exists. Change to another one.\n"
        )
    assert in_a_process("doctor").returncode == 1


# --- input that is not UTF-8 ---


def test_invalid_utf8_on_standard_input_is_replaced(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", typed)
    assert emojitune("chat", MODEL, *fake_provider).code == 0
    [request] = fake_api.chats
    assert request["messages"][-1]["content"] == "caf\ufffd"


def test_an_argument_that_is_not_utf8_is_named(
    emojitune: RunCommand, fake_provider: tuple[str, str]
) -> None:
    for command in (
        ("chat", MODEL, NOT_UTF8),
        ("chat", NOT_UTF8, "hi"),
        ("jobs", "show", NOT_UTF8),
    ):
        done = emojitune(*command, *fake_provider)
        assert done.code == 1
        assert done.err == "Error: Text must be UTF-8, and this is not: caf\\udce9.\n"


def test_a_variable_that_is_not_utf8_is_named_but_not_shown(
    emojitune: RunCommand, fake_provider: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-{NOT_UTF8}")
    done = emojitune("models", "list", *fake_provider)
    assert done.code == 1
    assert "OPENAI_API_KEY" in done.err
    assert "sk-" not in done.err


def test_a_file_whose_name_is_not_utf8(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], tmp_path: Path
) -> None:
    try:
        file = examples(tmp_path / f"{NOT_UTF8}.jsonl")
    except OSError:
        pytest.skip("this file system has only names that are text")
    page = tmp_path / "page.html"
    fake_api.healthy = False  # one table of scores is enough
    assert emojitune("run", "--train", file, "--valid", file, *fake_provider).code == 0
    assert b'filename="caf?.jsonl"' in fake_api.uploaded
    done = emojitune("evaluate", MODEL, "--data", file, "--report", page, *fake_provider)
    assert done.code == 0
    assert f"on {tmp_path}/caf?.jsonl" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("message", [(), ("",), ("  ",)])
def test_an_empty_message_is_an_error_with_advice(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    message: tuple[str, ...],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    done = emojitune("chat", MODEL, *message, *fake_provider)
    assert done.code == 1
    assert "Give a message after the model's name" in done.err
    assert fake_api.chats == []


def test_closed_standard_input_is_empty(
    emojitune: RunCommand, fake_provider: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    done = emojitune("chat", MODEL, *fake_provider)
    assert "Give a message after the model's name" in done.err


# --- output that cannot be written ---


def commands_of_every_kind(data: Path, fake_provider: tuple[str, str]) -> list[tuple[object, ...]]:
    return [
        ("--version",),
        ("jobs", "--help"),
        ("jobs", "list", *fake_provider),
        ("jobs", "show", JOB, "--json", *fake_provider),
        ("chat", MODEL, "hi", *fake_provider),
        ("data", "check", data),
        ("data", "check", data, "--json"),
        ("data", "check", "missing.jsonl", "--json"),
        ("keys", "list"),
        ("doctor", "--json"),
    ]


def test_output_to_a_full_disk(
    emojitune: RunCommand,
    fake_provider: tuple[str, str],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    for command in commands_of_every_kind(data, fake_provider):
        with open("/dev/full", "w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            done = emojitune(*command)
        assert done.code == 1
        assert done.err.splitlines()[-1] == (
            "Error: Standard output cannot be written: No space left on device. "
            "Redirect it elsewhere."
        )


def test_closed_output(
    emojitune: RunCommand,
    fake_provider: tuple[str, str],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    for command in commands_of_every_kind(data, fake_provider):
        done = emojitune(*command)
        assert done.code == 1
        assert done.err.startswith("Error: Standard output cannot be written: ")


def test_a_closed_pipe_is_not_an_error_message(
    emojitune: RunCommand,
    fake_provider: tuple[str, str],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for command in commands_of_every_kind(data, fake_provider):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            done = emojitune(*command)
        assert done.code == 1
        assert "Broken pipe" not in done.err
        assert "Error" not in done.err


def test_python_prints_no_error_at_exit(data: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        done = in_a_process("data", "check", data, stdout=pipe)
    assert (done.returncode, done.stderr) == (1, "")
    if Path("/dev/full").exists():
        with open("/dev/full", "w") as full:
            done = in_a_process("--version", stdout=full)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_a_server_that_cannot_print_its_url(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = in_a_process("serve", "--port", "0", "--home", tmp_path / "home", stdout=full)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: Standard output cannot be written: ")


# --- version, times, Ctrl-C ---


def test_version(emojitune: RunCommand) -> None:
    assert emojitune("--version").out == f"emojitune {__version__}\n"


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process cannot be set here")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_times_are_in_local_time(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str]
) -> None:
    first, *_ = emojitune("jobs", "events", JOB, *fake_provider).out.splitlines()
    assert first == f"1970-01-01 01:16:40+01:00 [info] Created fine-tuning job: {JOB}"
    assert (
        "created_at: 1970-01-01 01:16:40+01:00"
        in emojitune("jobs", "show", JOB, *fake_provider).out
    )
    assert (
        json.loads(emojitune("jobs", "events", JOB, "--json", *fake_provider).out)[0]["created_at"]
        == 1000
    )
    events = fake_api.events
    fake_api.events = lambda: [  # type: ignore[method-assign]
        one | {"created_at": 10**30} for one in events()
    ]
    assert f"{10**30} [info]" in emojitune("jobs", "events", JOB, *fake_provider).out


def test_ctrl_c_prints_one_line(
    emojitune: RunCommand, fake_provider: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tune, "chat", interrupt)
    done = emojitune("chat", MODEL, "hi", *fake_provider)
    assert (done.code, done.out, done.err) == (130, "", "Interrupted.\n")
