"""A command as a person types it, in this process, and a fake API to type it at."""

import io
import sys
from collections.abc import Callable

import pytest
from commands import Outcome
from fake_api import FakeApi

from emojitune.cli import main as command_line
from emojitune.workflow import fine_tune


@pytest.fixture
def emojitune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs one command, with `stdin` as what is piped into it, if anything is."""

    def run(*arguments: object, stdin: bytes | None = None) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["emojitune", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Outcome(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def here(fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The options that lead to the fake API."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setitem(fine_tune.follow.__kwdefaults__, "sleep", lambda seconds: None)
    return ("--provider", fake_api.url)
