"""Every command as a person types it, against a fake API; and bad input."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from commands import RunCommand
from fake_api import JOB, MODEL, FakeApi
from permissions import mode
from tiny_model import load_tiny

from emojitune.cli import main as command_line
from emojitune.cli import run as run_module
from emojitune.dataset.validation import check_file
from emojitune.models import adapter, lora
from emojitune.workflow import fine_tune

LABELS = ("(party)", "(wave)", "(sad)")


def row(question: str, reply: str, **changes: object) -> str:
    messages = [
        {"role": "system", "content": "Only emojis!"},
        {"role": "user", "content": question, **changes},
        {"role": "assistant", "content": reply},
    ]
    return json.dumps({"messages": messages})


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    rows = [row(f"a question about thing{i} and stuff{i}", LABELS[i % 3]) for i in range(20)]
    return write(tmp_path / "train.jsonl", rows)


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    rows = [row(f"wholly other words{i} to judge{i}", LABELS[i % 3]) for i in range(6)]
    return write(tmp_path / "valid.jsonl", rows)


def test_help_imports_no_slow_library() -> None:
    code = (
        "import sys, emojitune.cli.main\n"
        "heavy = {'openai', 'torch', 'transformers', 'pydantic_settings', 'sqlalchemy', "
        "'matplotlib', 'fastapi', 'uvicorn', 'numpy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_imports_torch_before_a_command_needs_it() -> None:
    code = (
        "import importlib, pkgutil, sys, emojitune.cli, emojitune.workflow\n"
        "for package in (emojitune.cli, emojitune.workflow):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


COMMANDS = (
    *("serve", "run", "chat", "evaluate", "rescue", "data check", "data stats", "data split"),
    *("data show", "data convert"),
    *("jobs list", "jobs show", "jobs follow", "jobs cancel", "jobs events"),
    *("jobs pause", "jobs resume"),
    *("models list", "models pull"),
    *("keys create", "keys list", "keys revoke"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(emojitune: RunCommand, command: str) -> None:
    shown = emojitune(*command.split(), "--help")
    assert shown.code == 0
    assert "Usage" in shown.out
    assert emojitune(*command.split(), "-h") == shown


def test_the_module_can_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emojitune.cli.main", "data", "check", "nothing.jsonl"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "does not exist: nothing.jsonl" in done.stdout


# --- run ---


def test_run_does_the_entire_job(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    train: Path,
    valid: Path,
) -> None:
    done = emojitune("run", "--train", train, "--valid", valid, "--epochs", 2, *fake_provider)
    assert done.code == 0
    for text in (
        "20 usable example(s)",
        "Uploaded",
        f"{JOB} fine-tunes gpt-3.5-turbo-0125",
        "epoch 2/2  step 4/4  loss 1.00",
        "[info] The job is over",
        "What the hell is going on?",
        "(party)  ",
        "top-5",
        f"emojitune chat {MODEL} --provider {fake_api.url}",
        "from openai import OpenAI",
    ):
        assert text in done.out
    assert fake_api.created["hyperparameters"] == {"n_epochs": 2}
    assert "validation_file" not in fake_api.created
    assert train.read_bytes() in fake_api.uploaded


def test_run_json_is_one_object_on_stdout(
    emojitune: RunCommand, fake_provider: tuple[str, str], train: Path, valid: Path
) -> None:
    done = emojitune("run", "--train", train, "--valid", valid, "--json", *fake_provider)
    result = json.loads(done.out)
    assert result["fine_tuned_model"] == MODEL
    assert result["job"]["status"] == "succeeded"
    assert result["smoke_test"]["reply"] == "(party)"
    assert [(row["model"], row["decoding"]) for row in result["scores"]] == [
        ("gpt-3.5-turbo", "free"),
        ("gpt-3.5-turbo", "constrained"),
        (MODEL, "free"),
        (MODEL, "constrained"),
    ]
    assert "Checking the data" in done.err


def test_run_on_another_api_scores_free_decoding_only(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    train: Path,
    valid: Path,
) -> None:
    fake_api.healthy = False
    done = emojitune("run", "--train", train, "--valid", valid, "--json", *fake_provider)
    assert [(row["model"], row["decoding"]) for row in json.loads(done.out)["scores"]] == [
        (MODEL, "free")
    ]
    assert not any("decoding" in request for request in fake_api.chats)


@pytest.fixture
def prose(tmp_path: Path) -> Path:
    rows = [row(f"question {i} is {i}", f"It depends.\nOn {i}.") for i in range(12)]
    return write(tmp_path / "prose.jsonl", rows)


def test_run_without_a_closed_vocabulary_compares_text(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], prose: Path
) -> None:
    fake_api.reply = lambda request: "It depends.\nOn 3."
    done = emojitune("run", "--train", prose, "--valid", prose, "--json", *fake_provider)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert [(row["model"], row["decoding"]) for row in result["scores"]] == [
        ("gpt-3.5-turbo", "free"),
        (MODEL, "free"),
    ]
    for scored in result["scores"]:
        assert scored["top_1"] == pytest.approx(1 / 12)
        assert scored["rouge_l"] == pytest.approx((1 + 11 * 3 / 4) / 12)
        assert "in_style" not in scored
    # The smoke test uses the file's own prompt; replies are long and requested once.
    smoke, *requests = fake_api.chats
    assert [message["content"] for message in smoke["messages"]] == [
        "Only emojis!",
        "question 0 is 0",
    ]
    assert len(requests) == 2 * (1 + 12)
    assert all(one["max_tokens"] > 12 and "n" not in one for one in requests)
    shown = emojitune("run", "--train", prose, "--valid", prose, *fake_provider).out
    assert "ROUGE-L" in shown
    assert "in style" not in shown


def test_evaluate_compares_text(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    prose: Path,
    tmp_path: Path,
) -> None:
    fake_api.closed = False
    fake_api.reply = lambda request: "It depends.\nOn 3."
    page = tmp_path / "page.html"
    arguments = ("evaluate", MODEL, "--data", prose, "--against", "gpt-3.5-turbo")
    done = emojitune(*arguments, "--report", page, "--json", *fake_provider)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert [row["decoding"] for row in result["scores"]] == ["free", "free"]
    assert result["comparisons"][0]["differences"] == {"top_1": 0, "rouge_l": 0}
    assert "ROUGE-L" in page.read_text(encoding="utf-8")
    assert "confusions" not in page.read_text(encoding="utf-8")
    assert "compared as text" in done.err


def test_a_model_without_a_vocabulary_can_be_scored_on_labels(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], valid: Path
) -> None:
    fake_api.closed = False
    done = emojitune("evaluate", MODEL, "--data", valid, "--json", *fake_provider)
    assert [row["decoding"] for row in json.loads(done.out)["scores"]] == ["free"]
    fake_api.refuse = 400
    assert "No, not you." in emojitune("evaluate", MODEL, "--data", valid, *fake_provider).err


def test_run_reports_why_a_job_failed(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    train: Path,
    valid: Path,
) -> None:
    fake_api.final_status = "failed"
    fake_api.error = {"code": "server_error", "message": "It broke.", "param": None}
    done = emojitune("run", "--train", train, "--valid", valid, *fake_provider)
    assert done.code == 1
    assert "Error [server_error]: The job ftjob-1 failed: It broke." in done.err


def test_ctrl_c_leaves_the_job_running_and_prints_how_to_follow_it(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    train: Path,
    valid: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    follow = fine_tune.follow
    monkeypatch.setattr(
        fine_tune, "follow", lambda client, job_id: follow(client, job_id, sleep=interrupt)
    )
    done = emojitune("run", "--train", train, "--valid", valid, *fake_provider)
    assert done.code == 130
    assert f"emojitune jobs follow {JOB} --provider {fake_api.url}" in done.out
    assert f"emojitune jobs cancel {JOB} --provider {fake_api.url}" in done.out
    assert not fake_api.cancelled


def test_the_cost_at_openai_must_be_confirmed(
    emojitune: RunCommand,
    fake_api: FakeApi,
    train: Path,
    valid: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", fake_api.url)
    done = emojitune("run", "--train", train, "--valid", valid, "--provider", "openai")
    assert done.code == 1
    assert "Nothing was started" in done.err
    for text in ("tokens", "$", "an estimate", "2026-10-23", "2027-01-06", fake_api.url):
        assert text in done.out
    assert fake_api.uploaded == b""
    assert "sk-secret" not in done.out + done.err


def test_yes_skips_the_confirmation(
    emojitune: RunCommand,
    fake_api: FakeApi,
    train: Path,
    valid: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", fake_api.url)
    monkeypatch.setitem(fine_tune.follow.__kwdefaults__, "sleep", lambda seconds: None)
    done = emojitune("run", "--train", train, "--valid", valid, "--provider", "openai", "--yes")
    assert done.code == 0
    assert fake_api.created["model"] == "gpt-3.5-turbo"


def test_the_base_model_is_downloaded_before_the_server_starts(
    fake_api: FakeApi,
    train: Path,
    valid: Path,
    monkeypatch: pytest.MonkeyPatch,
    emojitune: RunCommand,
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(
        run_module, "fetch", lambda base, settings, count: prepared.append(base.name)
    )
    connect = run_module.connect
    monkeypatch.setattr(
        run_module,
        "connect",
        lambda name, settings, prompt_for_key: connect(fake_api.url, prompt_for_key=prompt_for_key),
    )
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setitem(fine_tune.follow.__kwdefaults__, "sleep", lambda seconds: None)
    assert emojitune("run", "--train", train, "--valid", valid).code == 0
    assert prepared == ["smollm2-135m-instruct"]


# --- bad input: a message, an exit code, no traceback ---


def test_missing_file(emojitune: RunCommand, valid: Path) -> None:
    done = emojitune("run", "--train", "gone.jsonl", "--valid", valid)
    assert done.code == 1
    assert "does not exist: gone.jsonl" in done.out
    assert "cannot be used" in done.err


def test_malformed_line_17(emojitune: RunCommand, train: Path, valid: Path) -> None:
    lines = train.read_text().splitlines()
    lines[16] = lines[16][:-3]
    done = emojitune("run", "--train", write(train, lines), "--valid", valid)
    assert done.code == 1
    assert "Example 17 cannot be parsed" in done.out
    assert "Error [invalid_json]" in done.err


def test_nine_examples(emojitune: RunCommand, train: Path, valid: Path) -> None:
    write(train, train.read_text().splitlines()[:9])
    done = emojitune("run", "--train", train, "--valid", valid)
    assert done.code == 1
    assert "has 9 example(s), but must have at least 10 examples" in done.out


def test_wrong_role(emojitune: RunCommand, train: Path, valid: Path) -> None:
    lines = [*train.read_text().splitlines(), row("hi", "(wave)", role="robot")]
    done = emojitune("run", "--train", write(train, lines), "--valid", valid)
    assert done.code == 1
    assert 'Example 21, message 2 has the unknown role "robot"' in done.out


def test_unknown_model_at_a_provider(
    emojitune: RunCommand, fake_provider: tuple[str, str], train: Path, valid: Path
) -> None:
    done = emojitune(
        "run", "--train", train, "--valid", valid, "--model", "nonsense", *fake_provider
    )
    assert done.code == 1
    assert "The model 'nonsense' does not exist." in done.err


def test_unknown_model_of_the_local_server(emojitune: RunCommand, train: Path, valid: Path) -> None:
    done = emojitune("run", "--train", train, "--valid", valid, "--model", "nonsense")
    assert done.code == 1
    assert "'nonsense' does not exist" in done.err


def test_no_key(emojitune: RunCommand, train: Path, valid: Path) -> None:
    done = emojitune("run", "--train", train, "--valid", valid, "--provider", "openai")
    assert done.code == 1
    assert "There is no API key" in done.err


def test_invalid_settings(emojitune: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOJITUNE_THREADS", "many")
    done = emojitune("models", "pull", "smollm2-135m-instruct")
    assert done.code == 1
    assert "threads" in done.err


def test_epochs_out_of_bounds(emojitune: RunCommand) -> None:
    assert emojitune("run", "--epochs", 0).code == 2


# --- data ---


def test_data_check(emojitune: RunCommand, train: Path, valid: Path) -> None:
    done = emojitune("data", "check", train, "--valid", train)
    assert done.code == 0
    assert "asks what example 3 of the training file asks" in done.out
    assert "... and 17 more [leakage]: lines 4, 5, 6, 7, 8, 9, 10, 11 and 9 more" in done.out
    clean = emojitune("data", "check", train, "--valid", valid, "--json")
    assert json.loads(clean.out) == {
        "ok": True,
        "examples": 20,
        "issues": [],
        "validation": {"ok": True, "examples": 6, "issues": []},
        "leaked": 0,
    }


def test_data_check_of_a_bad_file(emojitune: RunCommand, train: Path) -> None:
    done = emojitune("data", "check", write(train, ["{"] * 30), "--json")
    assert done.code == 1
    assert len(json.loads(done.out)["issues"]) == 31
    assert "... and 27 more [invalid_json]: lines 4, 5, 6, 7, 8, 9, 10, 11 and 19 more" in done.err
    assert len(done.err.splitlines()) == 7


def test_data_check_strict_fails_on_warnings_but_not_on_notes(
    emojitune: RunCommand, train: Path
) -> None:
    lines = train.read_text().splitlines()
    rare = write(train, [*lines, row("what nobody else has said", "(bell)")])
    noted = emojitune("data", "check", rare, "--strict")
    assert noted.code == 0
    assert "note [labels_seen_once]: 1 of 4 labels" in noted.out
    repeated = emojitune("data", "check", write(train, [*lines, lines[0]]), "--strict", "--json")
    assert repeated.code == 1
    assert "1 warning(s), and --strict allows none" in repeated.err
    assert json.loads(repeated.out)["ok"]
    assert emojitune("data", "check", train).code == 0


def test_data_check_strict_includes_the_validation_file(
    emojitune: RunCommand, train: Path, valid: Path
) -> None:
    write(valid, [*valid.read_text().splitlines(), row("a bell rings", "(bell)")])
    done = emojitune("data", "check", train, "--valid", valid, "--strict")
    assert done.code == 1
    assert "unseen_label" in done.out + done.err


def test_data_check_fix(emojitune: RunCommand, train: Path) -> None:
    lines = train.read_text().splitlines()
    broken = write(train, [*lines, "{", lines[0], row("the lamp is out", " (sad)", mood="bad")])
    done = emojitune("data", "check", broken, "--fix", "--json")
    assert done.code == 0
    fixed = json.loads(done.out)["fixed"]
    assert (fixed["ok"], fixed["examples"], fixed["issues"]) == (True, 21, [])
    assert [(change["line"], change["code"]) for change in fixed["changes"]] == [
        (21, "invalid_json"),
        (22, "duplicate_example"),
        (23, "extra_key"),
        (23, "padded_reply"),
    ]
    copy = train.with_suffix(".fixed.jsonl").read_text().splitlines()
    assert copy == [*lines, row("the lamp is out", "(sad)")]
    listed = train.with_suffix(".fixed.txt").read_text().splitlines()
    assert listed[2] == 'line 23: extra_key: took out "mood"'
    again = emojitune("data", "check", broken, "--fix")
    assert again.code == 1
    assert "Nothing is overwritten" in again.err


@pytest.mark.parametrize(("of_it", "of_its_parts"), [(0o600, "600"), (0o440, "640")])
def test_derived_files_have_the_read_permissions_of_the_training_file(
    emojitune: RunCommand, train: Path, no_umask: None, of_it: int, of_its_parts: str
) -> None:
    train.chmod(of_it)
    assert emojitune("data", "split", train).code == 0
    assert emojitune("data", "check", train, "--fix").code == 0
    made = [path for path in train.parent.glob("train.*") if path != train]
    assert {path.name: mode(path) for path in made} == {
        f"train.{name}": of_its_parts
        for name in ("train.jsonl", "valid.jsonl", "fixed.jsonl", "fixed.txt")
    }


def test_data_stats(emojitune: RunCommand, train: Path, tmp_path: Path, no_umask: None) -> None:
    shown = emojitune("data", "stats", train, "--plot", tmp_path / "bars.png").out
    assert "20 examples, 3 different replies, 0 of them once" in shown
    assert "text labels in parentheses" in shown
    assert "█" * 30 in shown
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
    assert mode(tmp_path / "bars.png") == "600", "replies are on it"
    assert json.loads(emojitune("data", "stats", train, "--json").out)["frequencies"] == {
        "(party)": 7,
        "(wave)": 7,
        "(sad)": 6,
    }
    odd = emojitune("data", "stats", train, "--plot", tmp_path / "bars.nonsense")
    assert odd.code == 1
    assert "cannot be written" in odd.err


def test_data_show(emojitune: RunCommand, train: Path) -> None:
    shown = emojitune("data", "show", 2, train).out.splitlines()
    assert shown[1:] == ["user: a question about thing1 and stuff1", "assistant (trained): (wave)"]
    assert "has no line 21" in emojitune("data", "show", 21, train).err
    assert "cannot be parsed" in emojitune("data", "show", 1, write(train, ["{"])).err
    assert "cannot be read" in emojitune("data", "show", 1, train.with_name("gone")).err


def test_data_show_mask(
    emojitune: RunCommand, train: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOJITUNE_BASE_MODEL", str(tiny_base))
    tokens = json.loads(emojitune("data", "show", 1, train, "--mask", "--json").out)["tokens"]
    assert "".join(token["text"] for token in tokens if token["trained"]) == "(party)<|im_end|>"
    assert tokens[0] == {"id": 1, "text": "<|im_start|>", "trained": False}
    shown = emojitune("data", "show", 1, train, "--mask").out
    learned = shown[shown.index("⟦") : shown.index("⟧")]
    assert learned.replace("│", "") == "⟦(party)<|im_end|>"
    assert f"{len(tokens)} tokens" in shown


def test_data_split(emojitune: RunCommand, train: Path) -> None:
    assert emojitune("data", "split", train, "--share", 0.25).code == 0
    parts = [train.with_suffix(f".{part}.jsonl") for part in ("train", "valid")]
    assert [len(check_file(part, minimum_examples=1).examples) for part in parts] == [15, 5]
    again = emojitune("data", "split", train)
    assert again.code == 1
    assert "Nothing is overwritten" in again.err


# --- chat, evaluate, jobs, models ---


def test_chat(emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str]) -> None:
    done = emojitune("chat", MODEL, "I passed!", "--free", *fake_provider)
    assert done.out.startswith("(party)")
    assert fake_api.chats[0]["decoding"] == "free"
    assert fake_api.chats[0]["messages"][1]["content"] == "I passed!"


@pytest.mark.parametrize(
    ("model_fields", "options", "sent"),
    [
        ({}, (), "You're a chatbot that only responds with emojis!"),
        ({"system_prompt": None}, (), "You're a chatbot that only responds with emojis!"),
        ({"system_prompt": "Route it."}, (), "Route it."),
        ({"system_prompt": ""}, (), None),
        ({"system_prompt": "Route it."}, ("--system", "Be brief."), "Be brief."),
        ({"system_prompt": "Route it."}, ("--system", ""), None),
    ],
)
def test_chat_uses_the_system_prompt_of_the_training_file(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    model_fields: dict[str, str | None],
    options: tuple[str, ...],
    sent: str | None,
) -> None:
    fake_api.more_of_model = model_fields
    assert emojitune("chat", MODEL, "I passed!", *options, *fake_provider).code == 0
    before = [{"role": "system", "content": sent}] if sent else []
    question = [{"role": "user", "content": "I passed!"}]
    assert fake_api.chats[0]["messages"] == before + question


def test_chat_reports_an_unknown_model_before_it_reads_a_message(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str]
) -> None:
    done = emojitune("chat", "gpt-9", *fake_provider)
    assert done.code == 1
    assert "The API refused (404)" in done.err
    assert fake_api.chats == []


def test_evaluate(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], valid: Path
) -> None:
    done = emojitune("evaluate", MODEL, "--data", valid, "--json", *fake_provider)
    scores = json.loads(done.out)["scores"]
    assert [row["decoding"] for row in scores] == ["free", "constrained"]
    assert scores[0]["top_1"] == pytest.approx(1 / 3)
    assert scores[0]["intervals"]["top_1"][0] < 1 / 3 < scores[0]["intervals"]["top_1"][1]
    emojitune("evaluate", "gpt-3.5-turbo", "--data", valid, *fake_provider)
    assert "labels" in fake_api.chats[-1]


def test_evaluate_against_another_model(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], valid: Path
) -> None:
    fake_api.reply = lambda request: "(party)" if request["model"] == MODEL else "(nosuch)"
    against = ("--against", "gpt-3.5-turbo", "--workers", 1)
    done = emojitune("evaluate", MODEL, "--data", valid, *against, "--json", *fake_provider)
    free, constrained = json.loads(done.out)["comparisons"]
    assert (free["decoding"], constrained["decoding"]) == ("free", "constrained")
    assert free["differences"]["top_1"] == pytest.approx(1 / 3)
    assert 0 < free["p_values"]["top_1"] <= 1
    shown = emojitune("evaluate", MODEL, "--data", valid, *against, *fake_provider).out
    for text in (
        "mean reciprocal rank",
        "33.3% (0.0 to 66.7)",
        f"{MODEL} less gpt-3.5-turbo, free",
    ):
        assert text in shown


def test_evaluate_writes_a_report(
    emojitune: RunCommand,
    fake_provider: tuple[str, str],
    valid: Path,
    tmp_path: Path,
    no_umask: None,
) -> None:
    page = tmp_path / "report.html"
    page.write_text("of an older version, and readable by everybody")
    done = emojitune("evaluate", MODEL, "--data", valid, "--report", page, *fake_provider)
    assert f"Report: {page}" in done.out
    assert "4 wrong replies" in page.read_text(encoding="utf-8")
    assert mode(page) == "600", "messages and replies are in it"
    nowhere = tmp_path / "gone" / "report.html"
    refused = emojitune("evaluate", MODEL, "--data", valid, "--report", nowhere, *fake_provider)
    assert refused.code == 1
    assert "cannot be written" in refused.err


def test_cross_validation(
    emojitune: RunCommand,
    fake_api: FakeApi,
    fake_provider: tuple[str, str],
    train: Path,
    tmp_path: Path,
) -> None:
    page = tmp_path / "report.html"
    arguments = (
        "evaluate",
        "--cross-validate",
        train,
        "--rounds",
        2,
        "--report",
        page,
        "--json",
        *fake_provider,
    )
    done = emojitune(*arguments)
    result = json.loads(done.out)
    assert result["protocol"] in done.err
    assert result["seeds"] == [1, 2]
    table = {(row["model"], row["decoding"]): row for row in result["scores"]}
    assert list(table) == [
        ("majority label", "baseline"),
        ("TF-IDF + logistic regression", "baseline"),
        ("nearest neighbour, base's hidden states", "baseline"),
        ("untuned base", "constrained"),
        ("fine-tuned", "free"),
        ("fine-tuned", "constrained"),
    ]
    # One example of each of three labels is held out per round, and the API always says (party).
    assert {row["examples"] for row in table.values()} == {6}
    assert table["fine-tuned", "constrained"]["top_1"] == pytest.approx(1 / 3)
    assert [one["against"] for one in result["comparisons"]] == [name for name, _ in table][:4]
    assert fake_api.created["suffix"] == "cv-2"
    assert fake_api.created["seed"] == 2
    assert fake_api.uploaded.count(b'"messages"') == 17
    assert "untuned base" in page.read_text(encoding="utf-8")


def test_cross_validation_needs_a_server_with_constrained_decoding(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], train: Path
) -> None:
    fake_api.healthy = False
    done = emojitune("evaluate", "--cross-validate", train, *fake_provider)
    assert done.code == 1
    assert "needs an emojitune server" in done.err
    assert fake_api.uploaded == b""


def test_evaluate_needs_a_model_or_a_file(emojitune: RunCommand) -> None:
    assert "Name a model" in emojitune("evaluate").err


def test_evaluate_with_another_api_is_free_decoding_only(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], valid: Path
) -> None:
    fake_api.healthy = False
    done = emojitune("evaluate", MODEL, "--data", valid, "--json", *fake_provider)
    assert [row["decoding"] for row in json.loads(done.out)["scores"]] == ["free"]
    assert not any("decoding" in request for request in fake_api.chats)


def test_evaluate_an_adapter_folder(emojitune: RunCommand, tiny_base: Path, tmp_path: Path) -> None:
    model = load_tiny(tiny_base)
    lora.attach(model.module, rank=4, alpha=8.0, seed=0)
    folder, labels = tmp_path / "adapter", ("(party)", "(yawn)")
    info = adapter.AdapterInfo(str(tiny_base), rank=4, alpha=8.0, vocabulary=labels)
    adapter.write(folder, lora.adapter_state(model.module), info)
    data = write(
        tmp_path / "two.jsonl", [row(f"What {n}?", label) for n, label in enumerate(labels)]
    )
    done = emojitune("evaluate", folder, "--data", data, "--json")
    free, constrained = json.loads(done.out)["scores"]
    assert (free["model"], free["decoding"]) == (str(folder), "free")
    assert constrained["in_vocabulary"] == 1
    assert constrained["top_3"] == 1
    assert "expected_calibration_error" in free
    empty = emojitune("evaluate", tmp_path, "--data", data)
    assert "holds no adapter" in empty.err


def test_jobs(emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str]) -> None:
    fake_api.polls = 1
    fake_api.polls_to_finish = 4
    assert JOB in emojitune("jobs", "list", *fake_provider).out
    assert "status: running" in emojitune("jobs", "show", JOB, *fake_provider).out
    assert json.loads(emojitune("jobs", "show", JOB, "--json", *fake_provider).out)["id"] == JOB
    assert MODEL in emojitune("jobs", "follow", JOB, *fake_provider).out
    assert "The job is over" in emojitune("jobs", "events", JOB, *fake_provider).out
    assert emojitune("jobs", "pause", JOB, *fake_provider).out == f"{JOB}: paused\n"
    assert emojitune("jobs", "resume", JOB, *fake_provider).out == f"{JOB}: queued\n"
    assert emojitune("jobs", "cancel", JOB, *fake_provider).out == f"{JOB}: cancelled\n"


def test_jobs_plot(
    emojitune: RunCommand, fake_api: FakeApi, fake_provider: tuple[str, str], tmp_path: Path
) -> None:
    fake_api.polls = 0
    early = emojitune("jobs", "plot", JOB, "--out", tmp_path / "early.svg", *fake_provider)
    assert early.code == 1
    assert "no steps to draw yet" in early.err
    fake_api.polls = 10
    assert emojitune("jobs", "plot", JOB, "--out", tmp_path / "curve.svg", *fake_provider).code == 0
    assert "<svg" in (tmp_path / "curve.svg").read_text()
    odd = emojitune("jobs", "plot", JOB, "--out", tmp_path / "curve.xyz", *fake_provider)
    assert odd.code == 1
    assert "Name a .png or .svg file" in odd.err


def test_models_list(emojitune: RunCommand, fake_provider: tuple[str, str]) -> None:
    assert MODEL in emojitune("models", "list", *fake_provider).out


@pytest.mark.parametrize(
    "command", ["serve", "doctor", "keys list", "backup there", "jobs list", "run --yes"]
)
@pytest.mark.parametrize("below", ["", "/home", "/a/home"])
def test_a_home_that_cannot_be_a_folder_is_reported_in_one_sentence(
    emojitune: RunCommand, tmp_path: Path, command: str, below: str
) -> None:
    (tmp_path / "file").touch()
    done = emojitune(*command.split(), "--home", f"{tmp_path}/file{below}")
    assert done.code == 1
    assert f"{tmp_path}/file{below}" in done.err.replace("\n", "")
    assert "--home" in done.err


@pytest.mark.parametrize("command", ["serve", "doctor --repair", "backup there", "keys list"])
@pytest.mark.parametrize("link", ["to nowhere", "in a circle"])
def test_a_home_that_is_a_broken_link_is_reported_in_one_sentence(
    emojitune: RunCommand, tmp_path: Path, command: str, link: str
) -> None:
    home = tmp_path / "link"
    home.symlink_to(home if link == "in a circle" else tmp_path / "nowhere")
    done = emojitune(*command.split(), "--home", home)
    assert done.code == 1
    assert "--home" in done.err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "command", ["jobs show", "jobs follow", "jobs cancel", "jobs plot", "chat"]
)
def test_an_empty_name_is_rejected_in_one_sentence(emojitune: RunCommand, command: str) -> None:
    done = emojitune(*command.split(), "")
    assert done.code == 2
    assert "it is empty" in done.err
    assert done.err.count("\n") == 1


def test_empty_options_count_as_absent(
    emojitune: RunCommand, fake_api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "server.json").write_text(json.dumps({"url": fake_api.url}))
    (home / "api_key").write_text("key-of-home")
    monkeypatch.setenv("EMOJITUNE_HOME", str(home))
    for blank in ("", " "):
        assert JOB in emojitune("jobs", "list", "--provider", blank, "--home", blank).out


def test_a_path_may_begin_with_a_tilde(
    emojitune: RunCommand, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell does not expand it in `--option=~/file`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    done = emojitune("data", "check", f"~/{train.name}", f"--valid=~/{train.name}")
    assert f"{train}: 20 usable example(s)" in (done.out + done.err).replace("\n", "")
    assert emojitune("data", "stats", train, "--plot=~/bars.svg").code == 0
    assert (tmp_path / "bars.svg").is_file()


def test_every_path_option_expands_the_tilde() -> None:
    def forgetting(commands: typer.Typer) -> Iterator[str]:
        for group in commands.registered_groups:
            assert group.typer_instance is not None
            yield from forgetting(group.typer_instance)
        for command in commands.registered_commands:
            assert command.callback is not None
            for name, hint in get_type_hints(command.callback, include_extras=True).items():
                kind, option, *_ = (*get_args(hint), None, None)
                if Path in (kind, *get_args(kind)) and option.callback is None:
                    yield f"{command.callback.__name__} {name}"

    assert list(forgetting(command_line.app)) == []


@pytest.mark.parametrize("below", ["", "/cache"])
@pytest.mark.parametrize("model", ["smollm2-135m-instruct", "org/name"])
def test_a_cache_that_cannot_be_a_folder_is_reported_in_one_sentence(
    emojitune: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, below: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMOJITUNE_CACHE", f"{tmp_path}/file{below}")
    done = emojitune("models", "pull", model)
    assert done.code == 1
    assert "The cache must be a folder" in done.err
    assert "EMOJITUNE_CACHE" in done.err
