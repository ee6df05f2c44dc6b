"""An adapter folder as callables that `evaluate` asks for replies: no server, no store.

Knows where such a folder is on this disk; what it replies is what a server would with it.
"""

import math
import queue
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError, InvalidRequestError
from emojitune.evaluation.evaluate import Complete
from emojitune.evaluation.metrics import Reply
from emojitune.inference.types import ChatParameters, Delta, InferenceModel, Usage
from emojitune.models.catalog import base_called
from emojitune.models.torch_environment import import_libraries, prepare_chat
from emojitune.settings import Settings
from emojitune.workflow.score import ALTERNATIVES, CONSTRAINED, FREE, MAX_TOKENS, SAMPLING_SEED


def is_adapter_folder(name: str) -> bool:
    """Whether `name` is a folder rather than the name of a model; it must then hold an adapter."""
    if not Path(name).is_dir():
        return False
    if not (Path(name) / "adapter_config.json").is_file():
        raise InvalidRequestError(
            f"{name} is a folder, but holds no adapter: there is no adapter_config.json in it. "
            "Name the folder of one adapter, or a model."
        )
    return True


def adapter_completers(
    folder: Path, settings: Settings, *, text_tokens: int | None = None
) -> dict[str, Complete]:
    """What the adapter replies, by decoding; constrained only if it has a closed vocabulary.

    `text_tokens`: as in `Candidate`.
    """
    prepare_chat()
    import_libraries()
    from emojitune.inference.loading import load_tuned
    from emojitune.models import adapter, loader
    from emojitune.models.download import fetch

    info = adapter.read_info(folder)
    base = fetch(base_called(info.base), settings)
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
    precision = loader.choose_precision(settings)
    model = executor.submit(load_tuned, base, folder, precision, executor).result()
    found = {FREE: _free(model, text_tokens)}
    return {**found, CONSTRAINED: _constrained(model)} if info.vocabulary else found


def _constrained(model: InferenceModel) -> Complete:
    parameters = ChatParameters(
        max_tokens=MAX_TOKENS, temperature=0, decoding="labels", alternatives=ALTERNATIVES
    )

    def complete(messages: Sequence[Message]) -> Reply:
        asked = time.perf_counter()
        [deltas] = _ask(model, messages, parameters)
        seconds = time.perf_counter() - asked
        best = deltas[-1].alternatives
        labels = tuple(one.content for one in best)
        return Reply(_text(deltas), labels, best[0].probability, seconds)

    return complete


def _free(model: InferenceModel, text_tokens: int | None) -> Complete:
    greedy = ChatParameters(
        max_tokens=text_tokens or MAX_TOKENS, temperature=0, decoding="free", top_logprobs=0
    )
    sampled = ChatParameters(
        max_tokens=MAX_TOKENS, n=ALTERNATIVES - 1, seed=SAMPLING_SEED, decoding="free"
    )

    def complete(messages: Sequence[Message]) -> Reply:
        asked = time.perf_counter()
        [deltas] = _ask(model, messages, greedy)
        seconds = time.perf_counter() - asked
        best = _text(deltas)
        confidence = math.exp(sum(one.logprob for delta in deltas for one in delta.logprobs))
        alternatives = [best]
        if text_tokens is None:
            alternatives += [_text(pieces) for pieces in _ask(model, messages, sampled)]
        return Reply(best, tuple(alternatives), confidence, seconds)

    return complete


def _ask(
    model: InferenceModel, messages: Sequence[Message], parameters: ChatParameters
) -> list[list[Delta]]:
    """The pieces of each reply."""
    heard: queue.SimpleQueue[Delta | Usage | EmojituneError] = queue.SimpleQueue()
    model.start(messages, parameters, heard.put)
    replies: list[list[Delta]] = [[] for _ in range(parameters.n)]
    while not isinstance(event := heard.get(), Usage):
        if isinstance(event, EmojituneError):
            raise event
        replies[event.index].append(event)
    return replies


def _text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
