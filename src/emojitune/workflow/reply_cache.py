"""An on-disk cache for the replies of untuned base models.

Every run scores the same base on the same examples, which takes longer than anything but training.
The cache key covers the base, the request parameters and this program's code: a change of any of
them is a cache miss.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import emojitune
from emojitune.dataset.example import Message
from emojitune.disk import open_private
from emojitune.evaluation.evaluate import Complete
from emojitune.evaluation.metrics import Reply
from emojitune.settings import Settings
from emojitune.workflow.provider import Connection
from emojitune.workflow.score import Candidate


class ReplyCache:
    """A JSONL file of replies, appended one by one.

    Args:
        folder: The folder of all such files.
        key: Everything that determines a reply, except the messages and this program's code.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / f"{_digest(key, _code_version())}.jsonl"
        self._replies = dict(_read(self._path))
        self._from_disk = frozenset(self._replies)
        self._lock = threading.Lock()
        self.hit = False  # whether a reply of an earlier run was used

    def wrap(self, complete: Complete) -> Complete:
        """`complete` with this cache in front of it."""

        def cached(messages: Sequence[Message]) -> Reply:
            digest = _digest(*(text for one in messages for text in (one.role, one.content)))
            reply = self._replies.get(digest)
            if reply is None:
                reply = complete(messages)
                self._append(digest, reply)
            elif digest in self._from_disk:
                self.hit = True
            return reply

        return cached

    def _append(self, digest: str, reply: Reply) -> None:
        line = json.dumps({"key": digest, "reply": asdict(reply)})
        # A failed write only makes the next run slower.
        with self._lock, suppress(OSError):
            self._replies[digest] = reply
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open_private(self._path, "a") as file:
                file.write(f"{line}\n")


@dataclass(frozen=True, slots=True)
class ReplyCaches:
    """The caches of those candidates whose replies never change."""

    caches: Mapping[Candidate, ReplyCache]

    @property
    def hit(self) -> bool:
        """Whether a reply of an earlier run was used."""
        return any(cache.hit for cache in self.caches.values())

    def wrap(self, candidate: Candidate, complete: Complete) -> Complete:
        """`complete` with the candidate's cache in front of it, if there is one."""
        cache = self.caches.get(candidate)
        return complete if cache is None else cache.wrap(complete)


def open_reply_caches(
    connection: Connection,
    candidates: Iterable[Candidate],
    settings: Settings,
    pinned_weights: Callable[[str], str | None],
) -> ReplyCaches:
    """Open the caches of candidates with pinned weights, if this program computes their replies.

    A server that this connection did not start may run other code.

    Args:
        pinned_weights: Returns an identity of a model's weights; None if they may change.
    """
    if connection.server is None:
        return ReplyCaches({})
    compute = (settings.device, settings.dtype, settings.threads)
    weights = ((candidate, pinned_weights(candidate.model)) for candidate in candidates)
    return ReplyCaches(
        {
            candidate: ReplyCache(settings.cache / "replies", repr((pinned, compute, candidate)))
            for candidate, pinned in weights
            if pinned is not None
        }
    )


def _read(path: Path) -> Iterator[tuple[str, Reply]]:
    """The replies of a file, skipping damaged or truncated lines."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            reply = Reply(**entry["reply"])
            yield (
                entry["key"],
                Reply(reply.text, tuple(reply.alternatives), reply.confidence, reply.seconds),
            )


@cache
def _code_version() -> str:
    """A digest of this package's source code and the versions of the libraries that compute."""
    sources = sorted(Path(emojitune.__file__).parent.rglob("*.py"))
    libraries = [f"{name} {version(name)}" for name in ("torch", "transformers")]
    return _digest(*(path.read_text(encoding="utf-8") for path in sources), *libraries)


def _digest(*texts: str) -> str:
    hasher = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        hasher.update(len(raw).to_bytes(8, "big") + raw)
    return hasher.hexdigest()
