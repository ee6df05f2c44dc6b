"""`emojitune rescue` against a stand-in for OpenAI on a real port, with all of its habits."""

import base64
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import RunCommand
from filelock import FileLock
from permissions import mode
from rescue_source import (
    CSV,
    FREE_ACCOUNT,
    KEY,
    MODEL,
    RescueSource,
    Trouble,
    fill,
    running_rescue_source,
)

from emojitune.workflow.rescue.rescue import open_source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "rescued"


def manifest(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return value


def entries(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(one["kind"], one["id"], one["part"]): one for one in manifest(folder)["entries"]}


def content(folder: Path, kind: str, name: str, part: str = "object") -> bytes:
    return (folder / entries(folder)[kind, name, part]["path"]).read_bytes()


def refused(folder: Path) -> dict[tuple[str, str, str], str]:
    return {
        key: one["refused"]["message"] for key, one in entries(folder).items() if "refused" in one
    }


def lines(texts: list[str]) -> bytes:
    return "".join(text.replace("\n", " ") + "\n" for text in texts).encode()


def check_everything_is_there(source: RescueSource, folder: Path) -> None:
    """Each object as it was sent, byte by byte, under a name that the manifest knows."""
    for kind, texts in (
        ("job", source.jobs),
        ("file", source.files),
        ("batch", source.batches),
        ("chat", source.chats),
        ("model", {MODEL: source.models[MODEL]}),
    ):
        for name, text in texts.items():
            assert content(folder, kind, name) == text.encode()
    for job in source.jobs:
        assert content(folder, "job", job, "events") == lines(source.events[job])
        assert content(folder, "job", job, "checkpoints") == lines(source.checkpoints[job])
    for name, sent in source.contents.items():
        if ("file", name, "content") not in refused(folder):
            assert content(folder, "file", name, "content") == sent
    for chat, texts in source.messages.items():
        assert content(folder, "chat", chat, "messages") == lines(texts)
    assert content(folder, "file", "file-result", "csv") == CSV
    assert content(folder, "list", "models") == lines(list(source.models.values()))


def test_an_account_is_copied_as_it_was_sent(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    done = emojitune("rescue", folder, "--provider", source.url, "--chats")
    assert done.code == 0, done.err
    check_everything_is_there(source, folder)
    paths = [one["path"] for one in entries(folder).values() if "path" in one]
    assert len({path.lower() for path in paths}) == len(paths)
    assert all(re.fullmatch(r"[a-z]+(/[A-Za-z0-9._-]+){2}", path) for path in paths)
    assert (folder / "files/file-train/emoji_ft_train.jsonl").exists()
    assert (folder / "models/ft_gpt-3.5-turbo-0125_personal_emoji-v1_CRqb7Ag7/model.json").exists()
    standing = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert standing == {*paths, "README.md", "manifest.json", "rescue.lock"}
    assert manifest(folder)["is_complete"] is True
    assert refused(folder) == {
        ("file", "file-deleted", "object"): "No such File object: file-deleted",
        ("file", "file-private", "content"): "Not allowed to download files of purpose: user_data",
    }
    assert "1 refused: No such File object: file-deleted" in done.out
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "4 jobs (1 cancelled, 1 failed, 1 running, 1 succeeded), 257 events" in readme
    assert "“No such File object: file-deleted” object of file `file-deleted`" in readme
    if os.name == "posix":
        modes = {mode(path) for path in folder.rglob("*") if path.name != "rescue.lock"}
        assert modes == {"600", "700"}


def test_stored_completions_are_copied_only_when_asked_for(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert not [path for path in source.requests if path.startswith("/chat")]
    assert not (folder / "chats").exists()


def test_a_second_run_fetches_only_what_is_new_or_had_not_ended(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    first = emojitune("rescue", folder, "--provider", source.url, "--chats", "--json")
    source.requests.clear()
    second = emojitune("rescue", folder, "--provider", source.url, "--chats", "--json")
    assert json.loads(second.out) == json.loads(first.out)
    lists = ["/fine_tuning/jobs", "/files", "/models", "/batches", "/chat/completions"]
    running = "/fine_tuning/jobs/ftjob-running"
    gone = "/files/file-deleted"
    assert source.requests == [*lists, f"{running}/events", f"{running}/checkpoints", gone]

    source.requests.clear()
    source.add_job("ftjob-running", "succeeded", steps=9, training_file="file-new")
    source.add_file("file-new", "new.jsonl", b"new")
    assert emojitune("rescue", folder, "--provider", source.url, "--chats").code == 0
    check_everything_is_there(source, folder)
    assert "/files/file-new/content" in source.requests
    assert "/files/file-train/content" not in source.requests

    source.requests.clear()
    job = source.jobs["ftjob-done"]
    source.jobs["ftjob-done"] = job.replace(f'"{MODEL}"', "null")
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "job", "ftjob-done") == job.encode(), "it had ended, with its model"

    del source.files["file-new"], source.jobs["ftjob-done"]
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "file", "file-new", "content") == b"new", "what is here stays"
    assert len(content(folder, "job", "ftjob-done", "events").splitlines()) == 250


def test_events_are_fetched_again_until_their_job_had_ended_before_them(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    source.add_job("ftjob-1", "running", steps=2)
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    source.add_job("ftjob-1", "succeeded", steps=9)
    source.troubles = [Trouble("/events", 403)]
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "job", "ftjob-1") == source.jobs["ftjob-1"].encode()
    assert len(content(folder, "job", "ftjob-1", "events").splitlines()) == 2
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "job", "ftjob-1", "events") == lines(source.events["ftjob-1"])


def test_a_damaged_file_is_fetched_again(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    emojitune("rescue", folder, "--provider", source.url, "--chats")
    (folder / "files/file-train/emoji_ft_train.jsonl").write_bytes(b"short")
    (folder / "jobs/ftjob-done/events.jsonl").unlink()
    (folder / "jobs/ftjob-done/job.json").unlink()
    assert emojitune("rescue", folder, "--provider", source.url, "--chats").code == 0
    check_everything_is_there(source, folder)


def test_limits_errors_and_lost_connections_are_waited_out(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    source.trouble_every = 3
    source.troubles = [
        Trouble("/files/file-train/content", times=2, sent=3000),
        Trouble("/ftjob-done/events", 429, 3, headers={"Retry-After": "0.02"}),
    ]
    done = emojitune("rescue", folder, "--provider", source.url, "--chats")
    assert done.code == 0, done.err
    check_everything_is_there(source, folder)
    assert len(refused(folder)) == 2


def test_it_says_that_it_waits(
    emojitune: RunCommand, source: RescueSource, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setitem(open_source.__kwdefaults__, "sleep", waits.append)
    source.troubles = [Trouble("/files", 429, headers={"Retry-After": "90"})]
    done = emojitune("rescue", folder, "--provider", source.url)
    assert "The provider answered 429; trying again in 90 s" in done.out
    assert waits == [90]


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_what_one_object_is_refused_does_not_end_the_copy(
    emojitune: RunCommand, source: RescueSource, folder: Path, status: int
) -> None:
    fill(source)
    source.troubles = [
        Trouble("/files/file-train/content", status, 50, message=f"Not for {KEY}."),
        Trouble("/batches", status, 50, message="No batches here."),
    ]
    done = emojitune("rescue", folder, "--provider", source.url, "--chats")
    assert done.code == 0, done.err
    found = refused(folder)
    assert found["file", "file-train", "content"] == "Not for [key]."
    assert found["list", "batches", "object"] == "No batches here."
    assert content(folder, "job", "ftjob-done", "events") == lines(source.events["ftjob-done"])
    source.troubles = []
    assert emojitune("rescue", folder, "--provider", source.url, "--chats").code == 0
    assert len(refused(folder)) == 2
    check_everything_is_there(source, folder)


def test_a_free_account_keeps_its_training_files(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    source.is_free_account = True
    done = emojitune("rescue", folder, "--provider", source.url)
    assert done.code == 0
    assert refused(folder)["file", "file-train", "content"] == FREE_ACCOUNT
    assert content(folder, "file", "file-result", "csv") == CSV
    assert f"32 refused: {FREE_ACCOUNT}" in done.out
    assert "and 12 more in `manifest.json`" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_job_that_is_deleted_between_two_pages_is_noted(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    for number in range(150):
        source.add_job(f"ftjob-{number}", steps=1)
    before = dict(source.jobs)
    source.deleted_after_page = list(source.jobs)[99]  # the cursor of the second page
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert {one for kind, one, _ in entries(folder) if kind == "job"} == set(before)
    [gone] = before.keys() - source.jobs.keys()
    assert refused(folder)["job", gone, "events"] == f"Could not find fine tune: {gone}"

    source.deleted_after_page = "ftjob-done"  # after the first page of its events
    (folder / "jobs/ftjob-done/events.jsonl").unlink()
    for _ in range(2):
        assert emojitune("rescue", folder, "--provider", source.url).code == 0
        kept = content(folder, "job", "ftjob-done", "events")
        assert kept == lines(source.events["ftjob-done"][:100])
        assert ("job", "ftjob-done", "events") in refused(folder)


def test_a_result_file_that_is_no_base64_is_the_csv(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    source.add_file("file-result", "step_metrics.csv", CSV, "fine-tune-results")
    source.contents["file-result"] = CSV
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "file", "file-result", "csv") == CSV
    assert content(folder, "file", "file-result", "content") == CSV


def test_a_long_result_file_is_decoded(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    rows = CSV * 20_000
    source.add_file("file-result", "step_metrics.csv", rows, "fine-tune-results")
    source.contents["file-result"] = base64.encodebytes(rows)
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "file", "file-result", "csv") == rows


def test_a_size_that_was_not_announced_is_noted(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    source.add_file("file-1", "train.jsonl", b"eleven bytes")
    source.contents["file-1"] = b"more than eleven bytes"
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    assert content(folder, "file", "file-1", "content") == b"more than eleven bytes"
    note = "The file object announces 12 bytes, and 22 were sent."
    assert entries(folder)["file", "file-1", "content"]["note"] == note
    assert note in (folder / "README.md").read_text(encoding="utf-8")


def test_a_dry_run_counts_and_writes_nothing(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    done = emojitune("rescue", folder, "--provider", source.url, "--dry-run", "--json")
    assert done.code == 0
    counted = {one["title"]: (one["listed"], one["new"]) for one in json.loads(done.out)["counts"]}
    assert counted == {"jobs": (4, 4), "files": (36, 36), "models": (1, 1), "batches": (1, 1)}
    assert not folder.exists()
    emojitune("rescue", folder, "--provider", source.url)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    shown = emojitune("rescue", folder, "--provider", source.url, "--dry-run")
    assert re.search(r"jobs +4 +1 ", shown.out)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_the_key_is_in_no_file_and_no_output(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    fill(source)
    source.troubles = [Trouble("/files/file-train/content", 403, message=f"Key {KEY} may not.")]
    done = [
        emojitune("rescue", folder, "--provider", source.url, "--json"),
        emojitune("rescue", folder, "--provider", source.url.replace("//", f"//me:{KEY}@")),
    ]
    source.troubles = [Trouble("/jobs", 401, message=f"Incorrect API key provided: {KEY}.")]
    done.append(emojitune("rescue", folder, "--provider", source.url))
    assert done[2].code == 1
    assert "Incorrect API key provided: [key]. Check the API key." in done[2].err
    assert KEY in source.keys
    assert not [one for one in done if KEY in one.out + one.err]
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY in path.read_text()]


def test_one_process_at_a_time_and_one_provider(
    emojitune: RunCommand, source: RescueSource, folder: Path
) -> None:
    assert emojitune("rescue", folder, "--provider", source.url).code == 0
    with FileLock(folder / "rescue.lock"):
        done = emojitune("rescue", folder, "--provider", source.url)
    assert done.code == 1
    assert "Another process is copying into" in done.err
    with running_rescue_source() as other:
        done = emojitune("rescue", folder, "--provider", other.url)
    assert done.code == 1
    assert f"has those of {source.url}" in done.err


def test_folders_that_cannot_be_used(
    emojitune: RunCommand, source: RescueSource, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    done = emojitune("rescue", tmp_path, "--provider", source.url)
    assert (done.code, "holds thesis.tex" in done.err) == (1, True)
    done = emojitune("rescue", tmp_path / "thesis.tex", "--provider", source.url)
    assert (done.code, "Choose another folder" in done.err) == (1, True)
    emojitune("rescue", folder, "--provider", source.url)
    manifest = (folder / "manifest.json").read_text(encoding="utf-8")
    for damaged in ("[1]", manifest.replace("lists/models/", "../../../")):
        (folder / "manifest.json").write_text(damaged)
        done = emojitune("rescue", folder, "--provider", source.url)
        assert (done.code, "Move it away" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--provider", "azure"], "needs --resource"),
        (["--provider", "azure", "--resource", "a/b"], "the name of an Azure OpenAI resource"),
        (["--resource", "mine"], "add --provider azure"),
        (["--provider", "local"], "emojitune backup"),
        (["--provider", "azure", "--resource", "mine"], "Set AZURE_OPENAI_API_KEY"),
    ],
)
def test_providers_that_cannot_be_used(
    emojitune: RunCommand, source: RescueSource, folder: Path, options: list[str], said: str
) -> None:
    done = emojitune("rescue", folder, *options)
    assert done.code == 1
    assert said in done.err
    assert not folder.exists()


def test_a_provider_that_does_not_answer(emojitune: RunCommand, folder: Path) -> None:
    done = emojitune("rescue", folder, "--provider", "http://127.0.0.1:9/v1")
    assert done.code == 1
    assert "There is no API key" in done.err


# --- kills ---

# Forks a process for each line of arguments, which spares it the second that the imports take.
FORKS = """
import json, os, sys, time
import emojitune.cli.rescue
from emojitune.cli import main
from emojitune.workflow.rescue import patience
patience._BACKOFF = (0.01,) * 6
for line in sys.stdin:
    kill_after, log, *arguments = json.loads(line)
    process = os.fork()
    if not process:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1), os.dup2(output, 2)
        sys.argv, sys.stdin = ["emojitune", *arguments], open(os.devnull)
        main.main()
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, 9)
    print(os.waitpid(process, 0)[1], flush=True)
"""


class Forks:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *arguments: object, kill_after: float | None = None) -> int:
        """The status of a command that is killed after some seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps([kill_after, *map(str, arguments)])
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def final_state(folder: Path) -> dict[str, bytes]:
    """All files of a folder but the lock, without times."""
    state = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "rescue.lock":
            text = path.read_bytes()
            if path.parent == folder:
                text = re.sub(rb"\d{4}-\d\d-\d\d(T[\d:+]*)?", b"", text)
            state[str(path.relative_to(folder))] = text
    return state


def check_whole(source: RescueSource, folder: Path) -> None:
    """Everything that has its name is complete, at any moment."""
    for path in folder.glob("*/*/*"):
        found = path.read_bytes()
        match path.name:
            case "job.json" | "batch.json" | "model.json" | "chat.json":
                json.loads(found)
            case "events.jsonl":
                assert found == lines(source.events[path.parent.name])
            case "emoji_ft_train.jsonl":
                assert found == source.contents["file-train"]


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_killed_twenty_times_the_folder_is_the_same_in_the_end(
    source: RescueSource, tmp_path: Path
) -> None:
    fill(source, files=100, steps=500)
    source.trouble_every = 9
    log, arguments = tmp_path / "log", ("rescue", "--provider", source.url, "--chats")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    chance = random.Random(20)
    forks = Forks()
    try:
        started = time.monotonic()
        assert forks.run(log, *arguments, whole) == 0
        seconds = time.monotonic() - started
        ended = 0
        for _ in range(20):  # each goes on where the last one was, and has ever less to do
            moment = chance.uniform(0.05, seconds * 0.2)
            ended += forks.run(log, *arguments, killed, kill_after=moment) == 0
            check_whole(source, killed)
        assert ended < 10
        assert forks.run(log, *arguments, killed) == 0
    finally:
        forks.close()
    assert final_state(killed) == final_state(whole)
    check_everything_is_there(source, killed)
    assert KEY not in log.read_text(encoding="utf-8")
