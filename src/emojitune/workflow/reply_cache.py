"""Replies of an untuned base model, kept on this disk: every run compares with the same ones.

A base does not change from run to run, and what it is asked for a table seldom does: to ask it
again takes longer than anything else but the training. Another program, another base, another way
of asking, and nothing that was kept is known any more.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

import emojitune
from emojitune.dataset.example import Message
from emojitune.disk import open_private
from emojitune.evaluation.evaluate import Complete
from emojitune.evaluation.metrics import Reply


class KeptReplies:
    """A file of replies: a line each, written when it is known.

    Args:
        folder: Where such files are.
        of: Whatever decides a reply besides the messages and this program.
    """

    def __init__(self, folder: Path, of: str) -> None:
        self._path = folder / f"{_digest(of, _program())}.jsonl"
        self._replies = dict(_read(self._path))
        self._earlier = frozenset(self._replies)
        self._lock = threading.Lock()
        self.used = False  # whether a reply of an earlier run was

    def completing(self, complete: Complete) -> Complete:
        """The same, asking only for what is not known yet."""

        def known_or_asked(messages: Sequence[Message]) -> Reply:
            key = _digest(*(text for said in messages for text in (said.role, said.content)))
            reply = self._replies.get(key)
            if reply is None:
                reply = complete(messages)
                self._keep(key, reply)
            elif key in self._earlier:
                self.used = True
            return reply

        return known_or_asked

    def _keep(self, key: str, reply: Reply) -> None:
        line = json.dumps({"key": key, "reply": asdict(reply)})
        # A disk that takes nothing costs the next run some time, and this one nothing.
        with self._lock, suppress(OSError):
            self._replies[key] = reply
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open_private(self._path, "a") as file:
                file.write(f"{line}\n")


def _read(path: Path) -> Iterator[tuple[str, Reply]]:
    """The replies of a file; a line that was cut off, or is damaged, is passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            kept = json.loads(line)
            reply = Reply(**kept["reply"])
            yield (
                kept["key"],
                Reply(reply.text, tuple(reply.alternatives), reply.confidence, reply.seconds),
            )


@cache
def _program() -> str:
    """What makes replies: every line of this package, and the libraries that compute them."""
    sources = sorted(Path(emojitune.__file__).parent.rglob("*.py"))
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    return _digest(*(path.read_text(encoding="utf-8") for path in sources), *libraries)


def _digest(*texts: str) -> str:
    found = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()
