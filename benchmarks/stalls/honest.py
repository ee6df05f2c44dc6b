"""The honest clients: pollers of light endpoints, chats, and a few other requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx2

from benchmarks.stalls.server import Server
from benchmarks.stalls.verdict import POLL_SECONDS

POLLED = ("/healthz", "/v1/models")
CHAT = "chat"
_CHAT_PAUSE = 0.1  # seconds, as a person would leave
_OTHER_PAUSE = 1.0
_TIMEOUT = 60.0  # seconds; the official clients wait for ten minutes

Ask = Callable[[httpx2.AsyncClient], Awaitable[httpx2.Response]]


@dataclass
class Traffic:
    """The times of honest requests, by kind, and the errors of those that failed."""

    times: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def traffic(
    server: Server, *, chats: int = 1, others: bool = False
) -> AsyncIterator[Traffic]:
    """Run a block beside honest clients; their last requests are waited for.

    Args:
        chats: The number of clients that chat.
        others: Whether others embed, upload and list files, too.
    """
    found, over = Traffic(), asyncio.Event()
    headers = {"Authorization": f"Bearer {server.honest}"}
    numbers = count()

    async def keep(kind: str, ask: Ask, pause: float) -> None:
        times = found.times.setdefault(kind, [])
        while not over.is_set():
            began = time.perf_counter()
            try:
                response = await ask(client)
                if response.is_error:
                    found.failures.append(f"{kind}: {response.status_code} {response.text[:200]}")
            except httpx2.HTTPError as error:
                found.failures.append(f"{kind}: {type(error).__name__} {error}")
            times.append(time.perf_counter() - began)
            rest = pause if kind not in POLLED else max(0.0, pause - times[-1])
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), rest)

    kinds: list[tuple[str, Ask, float]] = [(path, _polling(path), POLL_SECONDS) for path in POLLED]
    kinds += [(CHAT, _chatting(numbers), _CHAT_PAUSE)] * chats
    kinds += [(kind, ask, _OTHER_PAUSE) for kind, ask in _OTHERS.items() if others]
    async with (
        httpx2.AsyncClient(
            base_url=server.url, headers=headers, timeout=_TIMEOUT, trust_env=False
        ) as client,
        asyncio.TaskGroup() as clients,
    ):
        for kind in kinds:
            clients.create_task(keep(*kind))
        try:
            yield found
        finally:
            over.set()


def _polling(path: str) -> Ask:
    return lambda client: client.get(path)


def _chatting(numbers: Any) -> Ask:
    async def ask(client: httpx2.AsyncClient) -> httpx2.Response:
        # No two are equal: a cached prompt would not need the engine.
        text = f"Is {next(numbers)} a large number?"
        return await client.post(
            "/v1/chat/completions",
            json={
                "model": "gpt-3.5-turbo",
                "messages": [{"role": "user", "content": text}],
                "max_tokens": 4,
                "temperature": 0,
            },
        )

    return ask


async def warm_up(server: Server) -> None:
    """Have the server do what it does only once, which an attack would else seem to cause: open the
    connections to its database that it keeps, and prepare the model's tokens for grammars."""
    headers = {"Authorization": f"Bearer {server.honest}"}
    async with httpx2.AsyncClient(
        base_url=server.url, headers=headers, timeout=_TIMEOUT, trust_env=False
    ) as client:
        await asyncio.gather(*(_list(client) for _ in range(32)))
        (await _reply_in_json(client)).raise_for_status()


async def _reply_in_json(client: httpx2.AsyncClient) -> httpx2.Response:
    body = {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Answer in JSON."}],
        "response_format": {"type": "json_object"},
        "max_tokens": 8,
    }
    return await client.post("/v1/chat/completions", json=body)


async def _embed(client: httpx2.AsyncClient) -> httpx2.Response:
    body = {"model": "text-embedding-3-small", "input": ["What a day!", "My dog is tired."]}
    return await client.post("/v1/embeddings", json=body)


async def _list(client: httpx2.AsyncClient) -> httpx2.Response:
    return await client.get("/v1/files")


async def _upload(client: httpx2.AsyncClient) -> httpx2.Response:
    files = {"file": ("some.txt", b"Some text.\n" * 1000)}
    response = await client.post("/v1/files", files=files, data={"purpose": "user_data"})
    if response.is_success:
        response = await client.delete(f"/v1/files/{response.json()['id']}")
    return response


_OTHERS: dict[str, Ask] = {
    "embeddings": _embed,
    "GET /v1/files": _list,
    "upload and delete": _upload,
}
