"""The fast paths as jobs and the server use them, with the methods of `reference.ReferenceModel`.

Packed rows shared out to threads, an adapter beside its base, the cache, the search.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.prompts import Prompts
from emojitune.errors import EmojituneError
from emojitune.inference import loading
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.engine.kv_cache import ForwardRequest, Prompt
from emojitune.inference.engine.scheduler import Decoder
from emojitune.inference.types import Delta, InferenceRequest, Usage
from emojitune.models import adapter, loader, lora
from emojitune.models.backend import choose_backend
from emojitune.models.loader import Precision
from emojitune.models.renderer import RenderedExample
from emojitune.training.forward import attach_lora
from emojitune.training.gradients import ThreadedGradients


def precision(dtype: torch.dtype, device: str = "cpu") -> Precision:
    """A device in the given numbers, whatever it multiplies best."""
    return Precision(torch.device(device), dtype, "as the comparison asks")


def gradients(
    base: Path,
    adapter_folder: Path,
    numbers: Precision,
    examples: Sequence[RenderedExample],
) -> tuple[float, dict[str, Tensor]]:
    """Mean loss over a batch's learned tokens, and its gradients by `adapter_state`'s names."""
    info, state = adapter.read(adapter_folder)
    model = loader.load_for_training(base, numbers)
    forward = attach_lora(model, rank=info.rank, alpha=info.alpha, seed=0)
    lora.load_adapter_state(forward.state, state)
    with ThreadedGradients(forward, numbers.device, len(examples), 1024) as threaded:
        score = threaded.backward(examples)
    return score.loss, {
        name: parameter.grad.cpu()
        for name, parameter in forward.state.items()
        if parameter.grad is not None
    }


class Chat:
    """A model with an adapter, as the server has it in memory, without the examples that re-rank
    its replies: the reference knows none."""

    def __init__(self, base: Path, adapter_folder: Path, numbers: Precision) -> None:
        backend, executor = choose_backend(base), ThreadPoolExecutor(1)
        tuned = loading.load_adapter(
            backend,
            adapter_folder,
            numbers,
            executor,
            lambda: loading.load_base(backend, numbers, executor),
        )
        assert isinstance(tuned, ChatModel)
        self._model = ChatModel(tuned.runtime, tuned.vocabulary, tuned.adapter)

    def log_probabilities(self, prompts: Prompts) -> list[Tensor]:
        """For each prompt the log-probabilities of all tokens after it and after each token of its
        reply, (1 + reply, V). All requests run at once, and replies are computed token by token."""
        found: list[list[Tensor]] = [[] for _ in prompts.ids]
        waiting = _Waiting(len(prompts.ids))

        def start(number: int, prompt: Prompt) -> Decoder[None]:
            [result] = yield [ForwardRequest(prompt.path, prompt.uncached)]
            found[number] += result.logprobs
            for token in prompts.replies[number]:
                [result] = yield [ForwardRequest(result.path, [token])]
                found[number] += result.logprobs
            waiting.done()

        for number, (prompt, reply) in enumerate(zip(prompts.ids, prompts.replies, strict=True)):
            room = len(prompt) + len(reply)
            self._model.runtime.scheduler.submit(
                prompt,
                partial(start, number),
                reserve=room,
                on_error=waiting.failed,
                adapter=self._model.adapter,
            )
        waiting.wait()
        return [torch.stack(rows).cpu() for rows in found]

    def chosen(self, prompts: Prompts) -> list[int]:
        """The index of the label that each prompt is answered with; all requests run at once."""
        sampling = SamplingParams(temperature=0.0)
        texts = ["" for _ in prompts.ids]
        waiting = _Waiting(len(prompts.ids))

        def listen(number: int, event: Delta | Usage | EmojituneError) -> None:
            match event:
                case Delta():
                    texts[number] += event.text
                case Usage():
                    waiting.done()
                case EmojituneError():
                    waiting.failed(event)

        for number, messages in enumerate(prompts.messages):
            request = InferenceRequest(messages, sampling, labels=prompts.labels)
            self._model.start(request, partial(listen, number))
        waiting.wait()
        return [prompts.labels.index(text) for text in texts]


class _Waiting:
    """Waits for `count` requests to end, or for one to fail."""

    def __init__(self, count: int) -> None:
        self._semaphore = threading.Semaphore(0)
        self._count = count
        self._errors: list[Exception] = []

    def done(self) -> None:
        self._semaphore.release()

    def failed(self, error: Exception) -> None:
        self._errors.append(error)
        self._semaphore.release(self._count)

    def wait(self) -> None:
        for _ in range(self._count):
            self._semaphore.acquire()
        if self._errors:
            raise self._errors[0]
