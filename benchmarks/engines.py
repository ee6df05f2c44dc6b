"""One engine, one process: `python -m benchmarks.engines NAME INPUTS STARTED`.

Starts the engine, has it reply to the prompts of the file INPUTS, and prints one line of JSON:
the time until it was ready and until its first reply; for each concurrency the time of all replies,
the processor time, the number of replies that are the file's label, and the time of each; and the
peak memory. The process that starts it passes the time, so that imports count.
"""

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from benchmarks import in_process, over_http
from benchmarks.engine import Engine, Inputs, Level
from benchmarks.processes import say
from benchmarks.usage import peak_mb, processor_seconds

OURS = "emojitune, constrained"
ENGINES: dict[str, Callable[[Inputs, float], AbstractContextManager[Engine]]] = {
    OURS: lambda inputs, _: over_http.emojitune(inputs, "labels"),
    "emojitune, free": lambda inputs, _: over_http.emojitune(inputs, "free"),
    "transformers generate, bf16": in_process.transformers,
    "llama.cpp server, Q4_1": lambda inputs, _: over_http.llama_cpp(inputs, inputs.tuned.q4_1),
    "llama.cpp server, Q8_0": lambda inputs, _: over_http.llama_cpp(inputs, inputs.tuned.q8_0),
    "OpenVINO GenAI, int8": in_process.openvino,
}


def measured(engine: Engine, inputs: Inputs) -> dict[str, Any]:
    """The measurements of one engine; seconds throughout."""
    ready = time.time() - engine.started
    (first,) = engine.ask([inputs.first], 1)
    return {
        "ready": ready,
        "first_reply": first.seconds,
        "levels": {n: _level(engine, n, level) for n, level in inputs.levels.items()},
        "peak_mb": peak_mb(engine.pid),
    }


def _level(engine: Engine, concurrency: int, level: Level) -> dict[str, Any]:
    engine.ask(level.warm_up, concurrency)
    start, used = time.perf_counter(), processor_seconds(engine.pid)
    replies = engine.ask(level.counted, concurrency)
    seconds, used = time.perf_counter() - start, processor_seconds(engine.pid) - used
    pairs = zip(replies, level.counted, strict=True)
    return {
        "seconds": seconds,
        "processor_seconds": used,
        "hits": sum(reply.text == prompt.label for reply, prompt in pairs),
        "latencies": [reply.seconds for reply in replies],
    }


def main(name: str, file: str, started: str) -> None:
    inputs = TypeAdapter(Inputs).validate_json(Path(file).read_bytes())
    with ENGINES[name](inputs, float(started)) as engine:
        say(measured(engine, inputs))


if __name__ == "__main__":
    main(*sys.argv[1:])
