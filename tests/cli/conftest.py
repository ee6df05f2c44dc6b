"""Commands as a person types them, run in this process, and a fake API for them."""

import io
import sys
from collections.abc import Callable

import pytest
from commands import CommandResult
from fake_api import FakeApi

from emojitune.cli import main as command_line
from emojitune.workflow import fine_tune


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
