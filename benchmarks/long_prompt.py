"""One engine and long prompts: `python -m benchmarks.long_prompt NAME GGUF SEED TOKENS...`.

Starts the engine, has it answer a prompt of each length, and prints one line of JSON: by length,
the seconds to the first token and to an answer of 16, and the peak memory beyond idle.
"""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.contenders import base_model
from benchmarks.over_http import client, llama_cpp_server
from benchmarks.processes import say
from benchmarks.reply_prompts import digits
from benchmarks.usage import memory_mb, peak_mb, reset_peak

ANSWER = 16  # tokens
SPARE = 64  # tokens of llama.cpp's context beside prompt and answer
WARM_UP = 128  # tokens
STOPS = (0, 2)  # the ids that would end an answer sooner

OURS, LLAMA_CPP = "emojitune, bf16", "llama.cpp server, F16"


@dataclass(frozen=True, slots=True)
class Answering:
    """An engine that is ready: its process, and a function from a text to the times of tokens."""

    pid: int
    ask: Callable[[str], tuple[float, float]]


@contextmanager
def emojitune(gguf: Path, longest: int) -> Iterator[Answering]:
    """Our server as `emojitune serve` starts it."""
    from emojitune.settings import Settings
    from emojitune.workflow.provider import connect

    with (
        TemporaryDirectory() as home,
        client() as http,
        connect("local", Settings(home=Path(home))) as connection,
    ):
        assert connection.server is not None
        http.headers["Authorization"] = f"Bearer {connection.client.api_key}"
        yield Answering(connection.server.pid, _streaming(http, connection.base_url))


@contextmanager
def llama_cpp(gguf: Path, longest: int) -> Iterator[Answering]:
    """llama.cpp's own server."""
    context = longest + ANSWER + SPARE
    with client() as http, llama_cpp_server(gguf, 1, context) as (url, pid):
        yield Answering(pid, _streaming(http, url))


def _streaming(http: Any, url: str) -> Callable[[str], tuple[float, float]]:
    def ask(content: str) -> tuple[float, float]:
        body = {
            "model": "gpt-3.5-turbo",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": ANSWER,
            "temperature": 0,
            "stream": True,
            "logit_bias": {str(stop): -100 for stop in STOPS},
        }
        began, first = time.perf_counter(), None
        with http.stream("POST", f"{url}/chat/completions", json=body) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if first is None and '"content":"' in line and '"content":""' not in line:
                    first = time.perf_counter() - began
        assert first is not None
        return first, time.perf_counter() - began

    return ask


@contextmanager
def transformers(gguf: Path, longest: int) -> Iterator[Answering]:
    """transformers' generate in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model())
    model = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.bfloat16).eval()

    class Clock:
        """A streamer that notes when it receives the prompt, and each token."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, _: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    @torch.inference_mode()
    def ask(content: str) -> tuple[float, float]:
        began, clock = time.perf_counter(), Clock()
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        model.generate(
            **given,
            max_new_tokens=ANSWER,
            min_new_tokens=ANSWER,
            do_sample=False,
            streamer=clock,
        )
        return clock.times[1] - began, clock.times[-1] - began

    yield Answering(os.getpid(), ask)


ENGINES: dict[str, Callable[[Path, int], AbstractContextManager[Answering]]] = {
    OURS: emojitune,
    "transformers generate, bf16": transformers,
    LLAMA_CPP: llama_cpp,
}


def main(name: str, gguf: str, seed: str, *lengths: str) -> None:
    numbers, found = random.Random(int(seed)), {}
    wanted = [int(length) for length in lengths]
    with ENGINES[name](Path(gguf), max(wanted)) as engine:
        for _ in range(2):
            engine.ask(digits(WARM_UP, numbers))
        for length in wanted:
            idle = memory_mb(engine.pid)
            reset_peak(engine.pid)
            first, answer = engine.ask(digits(length, numbers))
            beyond = (peak_mb(engine.pid) or 0.0) - idle
            found[length] = {"first_s": first, "answer_s": answer, "beyond_idle_mb": beyond}
    say(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
