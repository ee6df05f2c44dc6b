"""llama.cpp's server, by the wheel `xllamacpp`.

`python -m benchmarks.llama_cpp_server GGUF SLOTS CONTEXT` prints its URL when it answers, and
serves until it is killed. CONTEXT is the number of tokens of a slot: prompt and reply.
"""

import os
import signal
import socket
import sys

import xllamacpp


def main(gguf: str, slots: str, context: str) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.n_parallel = int(slots)
    parameters.n_ctx = int(context) * int(slots)
    parameters.kv_unified = True  # one cache for all slots
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = os.cpu_count()
    parameters.port = _free_port()
    parameters.verbosity = 0
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main(*sys.argv[1:])
