"""A cache with hostile models, and a hub that has nothing to say.

The models lie where the hub's library would have put them: `stalls/template`, `stalls/config` and
`stalls/tokenizer`. Each is the default base model with one file that was tampered with.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

_REVISION = "0" * 40
# Jinja's sandbox bounds one range, not two in one another.
_ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
_DOUBLINGS = 22  # a letter becomes 4 MiB, and its alignments 16 times that


def make_cache(base: Path, cache: Path) -> None:
    """Make a cache folder with the default base model and the hostile ones."""
    (cache / "hub").mkdir(parents=True)
    (cache / "models").symlink_to(base.parent)
    for name, tamper in _MODELS.items():
        repository = cache / "hub" / f"models--stalls--{name}"
        folder = repository / "snapshots" / _REVISION
        folder.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(_REVISION, encoding="utf-8")
        for file in base.iterdir():
            (folder / file.name).symlink_to(file)
        tamper(folder)


def _endless_template(folder: Path) -> None:
    _rewrite(folder / "tokenizer_config.json", lambda config: config.pop("chat_template", None))
    template = folder / "chat_template.jinja"
    template.unlink(missing_ok=True)
    template.write_text(_ENDLESS, encoding="utf-8")


def _absurd_config(folder: Path) -> None:
    sizes = {"hidden_size": 2**20, "intermediate_size": 2**24, "num_hidden_layers": 10**9}
    _rewrite(folder / "config.json", lambda config: config.update(sizes))


def _tokenizer_bomb(folder: Path) -> None:
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    bomb = {"type": "Sequence", "normalizers": [doubling] * _DOUBLINGS}
    _rewrite(folder / "tokenizer.json", lambda tokenizer: tokenizer.update(normalizer=bomb))


_MODELS: dict[str, Callable[[Path], None]] = {
    "template": _endless_template,
    "config": _absurd_config,
    "tokenizer": _tokenizer_bomb,
}


def _rewrite(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.unlink()  # the base model's own
    file.write_text(json.dumps(content), encoding="utf-8")


@asynccontextmanager
async def hub() -> AsyncIterator[str]:
    """The URL of a hub that never answers about `silent/...`, and has no other repository."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"silent" in head:
                await reader.read()  # until the client gives up
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
