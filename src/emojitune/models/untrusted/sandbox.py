"""A model's chat template and tokenizer in a process of their own, within limits.

For those whose cost `plain` does not know. The process starts with the first call. One that exceeds
a limit ends, and the next call starts another.
"""

import json
import subprocess
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from emojitune.errors import ConversationError
from emojitune.models.untrusted import limited_process
from emojitune.models.untrusted.limits import REFUSED
from emojitune.models.untrusted.sandbox_main import MAX_MEMORY

_MAX_SECONDS = 5.0  # of a request; published templates take milliseconds
_REFUSED_SECONDS = 60.0  # for which a template that exceeded a limit is not tried again


class Sandbox:
    """Runs what one model brings, one call at a time.

    Args:
        template: Its chat template.
        special_tokens: What the template can write in addition, by name.
        tokenizer: tokenizer.json on one line; None where texts are encoded elsewhere.
        max_seconds: The time limit of a call.
    """

    def __init__(
        self,
        template: str,
        special_tokens: Mapping[str, Any],
        tokenizer: str | None,
        max_seconds: float = _MAX_SECONDS,
    ) -> None:
        setup = {
            "template": template,
            "special_tokens": dict(special_tokens),
            "max_seconds": max_seconds,
        }
        self._setup = f"{json.dumps(setup)}\n{tokenizer or ''}\n"
        self._max_seconds = max_seconds
        self._refused_until, self._refusal = 0.0, ""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def render(
        self, turns: Sequence[Mapping[str, str]], *, add_generation_prompt: bool, max_length: int
    ) -> str:
        """The text that the chat template makes of `turns`.

        Raises:
            ConversationError: A limit is exceeded.
            ValueError: The template refuses the turns, or its text is longer than `max_length`.
        """
        request = {"turns": turns, "add_generation_prompt": add_generation_prompt}
        with self._lock:
            if time.monotonic() < self._refused_until:
                raise ConversationError(self._refusal, code=REFUSED)
            try:
                text: str = self._call({**request, "max_length": max_length})
            except ConversationError as error:
                self._refused_until = time.monotonic() + _REFUSED_SECONDS
                self._refusal = error.message
                raise
        return text

    def encode(self, text: str, *, split_special_tokens: bool) -> list[int]:
        """Token ids of `text`.

        Raises:
            ConversationError: A limit is exceeded.
            ValueError: The tokenizer does not accept the text.
        """
        request = {"text": text, "split_special_tokens": split_special_tokens}
        with self._lock:
            ids: list[int] = self._call(request)
        return ids

    def _call(self, request: Mapping[str, Any]) -> Any:
        if self._process is None:
            self._start()
        reply = self._exchange(json.dumps(request) + "\n")
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply["result"]

    def _start(self) -> None:
        self._process = subprocess.Popen(
            limited_process.command("emojitune.models.untrusted.sandbox_main"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=limited_process.environment(),
            start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
        )
        self._end = weakref.finalize(self, _end, self._process)
        self._exchange(self._setup)

    def _exchange(self, lines: str) -> dict[str, Any]:
        """The reply to a request."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(lines)
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            process, self._process = self._process, None
            self._end()
            why = limited_process.why_ended(process.wait(), self._max_seconds, MAX_MEMORY)
            raise ConversationError(
                "A model's chat template and tokenizer must work within limits of time and memory, "
                f"and this one's do not: {why}. Use another model, or repair its files.",
                code=REFUSED,
            )
        reply: dict[str, Any] = json.loads(line)
        return reply


def _end(process: subprocess.Popen[str]) -> None:
    """End a process, unless it has ended."""
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was not written yet
            if pipe:
                pipe.close()
    process.wait()
