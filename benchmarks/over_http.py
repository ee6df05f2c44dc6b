"""Engines over HTTP: a server in a process of its own, with a thread for each concurrent request.

Their libraries are imported when they are started: engines in process have no use for them.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine import MAX_TOKENS, Engine, Inputs, Reply
from benchmarks.reply_prompts import Prompt

SLOT_CONTEXT = 256  # tokens of a slot of llama.cpp: prompt and reply


@contextmanager
def emojitune(inputs: Inputs, decoding: str) -> Iterator[Engine]:
    """Our server as `emojitune serve` starts it, holding replies to labels or not."""
    from emojitune.settings import Settings
    from emojitune.workflow.provider import connect

    with client() as http:
        started = time.time()
        with connect("local", Settings(home=inputs.tuned.home)) as connection:
            if connection.server is None:
                raise SystemExit(f"Stop the server of {inputs.tuned.home}: its start counts.")
            http.headers["Authorization"] = f"Bearer {connection.client.api_key}"
            extra = {"model": inputs.tuned.name, "decoding": decoding}
            ask = _Requests(http, connection.base_url, extra)
            yield Engine(started, connection.server.pid, ask)


@contextmanager
def llama_cpp(inputs: Inputs, gguf: Path) -> Iterator[Engine]:
    """llama.cpp's own server."""
    with client() as http:
        started = time.time()
        with llama_cpp_server(gguf, max(inputs.levels), SLOT_CONTEXT) as (url, pid):
            yield Engine(started, pid, _Requests(http, url, {}))


@contextmanager
def llama_cpp_server(gguf: Path, slots: int, context: int) -> Iterator[tuple[str, int]]:
    """The base URL and the process of llama.cpp's server with `context` tokens a slot."""
    arguments = (str(gguf), str(slots), str(context))
    command = [sys.executable, "-m", "benchmarks.llama_cpp_server", *arguments]
    # As our own server does: threads that wait for one another by spinning for longer keep the
    # client from a core.
    environment = {"GOMP_SPINCOUNT": "10000", **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        try:
            yield f"{server.stdout.readline().decode().strip()}/v1", server.pid
        finally:
            server.kill()


def client() -> Any:
    """A client without limits of its own."""
    import httpx2

    # Lighter than the openai client, which would take a share of the same cores.
    unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx2.Client(timeout=600, limits=unlimited, trust_env=False)


class _Requests:
    """Requests replies, `concurrency` at a time, each as soon as another has ended."""

    def __init__(self, client: Any, base_url: str, extra: dict[str, Any]) -> None:
        self._client = client
        self._url = f"{base_url}/chat/completions"
        self._extra = extra

    def __call__(self, prompts: Sequence[Prompt], concurrency: int) -> list[Reply]:
        with ThreadPoolExecutor(concurrency) as threads:
            return list(threads.map(self._ask, prompts))

    def _ask(self, prompt: Prompt) -> Reply:
        began = time.perf_counter()
        body = {"messages": prompt.messages, "max_tokens": MAX_TOKENS, "temperature": 0}
        answer = self._client.post(self._url, json=body | self._extra)
        answer.raise_for_status()
        text = answer.json()["choices"][0]["message"]["content"]
        return Reply(text, time.perf_counter() - began)
