"""Commands as a person types them, run in this process, and a fake API for them."""

import io
import sys
from collections.abc import Callable, Iterator

import pytest
from commands import CommandResult
from fake_api import FakeApi
from rescue_source import KEY, RescueSource, running_rescue_source

from emojitune.cli import main as command_line
from emojitune.workflow import fine_tune
from emojitune.workflow.rescue import patience


@pytest.fixture
def emojitune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., CommandResult]:
    """Runs a command, with `stdin` piped into it if given."""

    def run(*arguments: object, stdin: bytes | None = None) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["emojitune", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return CommandResult(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def fake_provider(fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The options that select the fake API as provider."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setitem(fine_tune.follow.__kwdefaults__, "sleep", lambda seconds: None)
    return ("--provider", fake_api.url)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[RescueSource]:
    """An account to rescue, at a provider whose failures are over soon."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(patience, "_BACKOFF", (0.01,) * 6)
    with running_rescue_source() as running:
        yield running
