"""Several adapters over one base: each request must be computed as if it were alone."""

import gc
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from gathered import request_for
from reference import log_probabilities
from tiny_model import chat_tiny, load_tiny, make_adapter

from emojitune.errors import EmojituneError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.engine.kv_cache import ForwardRequest, KVCache, Prompt
from emojitune.inference.engine.scheduler import Decoder
from emojitune.inference.types import Delta, Usage
from emojitune.models.linear import PackedLinear

# The sums are those of the merged weights in another order: float32 allows for that.
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SHORT, LONG = [1, 40, 41], [1, *range(40, 70)]


@pytest.fixture(scope="module")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [make_adapter(tiny_base, folder / str(seed), seed) for seed in (1, 2)]


@pytest.fixture
def models(tiny_base: Path, adapters: list[Path]) -> list[ChatModel]:
    """The bare base, and two models on it."""
    base = chat_tiny(tiny_base)
    return [base, *(base.with_adapter(folder) for folder in adapters)]


@pytest.fixture
def references(tiny_base: Path, adapters: list[Path]) -> list[torch.nn.Module]:
    """The references: transformers' modules, with the adapters merged."""
    return [load_tiny(tiny_base, folder).module for folder in (None, *adapters)]


def test_a_pass_of_several_adapters_gives_each_its_own(
    models: list[ChatModel], references: list[torch.nn.Module]
) -> None:
    prompts = [(0, SHORT), (0, LONG), (1, LONG), (1, SHORT), (2, SHORT)]
    cache = KVCache(models[0].runtime.runner)
    root = cache.match_prefix([], None).path
    adapters = [models[which].adapter for which, _ in prompts]
    first = cache.forward([[ForwardRequest(root, ids)] for _, ids in prompts], adapters)
    second = cache.forward([[ForwardRequest(result.path, [50])] for [result] in first], adapters)
    for (which, ids), [one], [next_one] in zip(prompts, first, second, strict=True):
        torch.testing.assert_close(
            one.logprobs[0], log_probabilities(references[which], ids)[-1], **CLOSE
        )
        expected = log_probabilities(references[which], [*ids, 50])[-1]
        torch.testing.assert_close(next_one.logprobs[0], expected, **CLOSE)
    assert (first[0][0].logprobs[0] - first[3][0].logprobs[0]).abs().max() > 0.1
    assert (first[3][0].logprobs[0] - first[4][0].logprobs[0]).abs().max() > 0.1


def ask(model: ChatModel, prompt: Sequence[int]) -> tuple[int, torch.Tensor]:
    """The cached tokens of a prompt, and the log-probabilities after it."""
    found: list[tuple[int, torch.Tensor]] = []
    done = threading.Event()

    def request(matched: Prompt) -> Decoder[None]:
        [result] = yield [ForwardRequest(matched.path, matched.uncached)]
        found.append((matched.cached, result.logprobs[0]))
        done.set()

    model.runtime.scheduler.submit(
        prompt, request, reserve=64, on_error=lambda _: done.set(), adapter=model.adapter
    )
    assert done.wait(10)
    return found[0]


def test_models_do_not_share_cached_prefixes(
    models: list[ChatModel], references: list[torch.nn.Module]
) -> None:
    for model, reference in zip(models, references, strict=True):
        cached, found = ask(model, LONG)
        assert cached == 0
        torch.testing.assert_close(found, log_probabilities(reference, LONG)[-1], **CLOSE)
    for model, reference in zip(models, references, strict=True):
        cached, found = ask(model, LONG)
        assert cached == len(LONG) - 1
        torch.testing.assert_close(found, log_probabilities(reference, LONG)[-1], **CLOSE)


def test_the_cache_keeps_no_adapter_in_memory(models: list[ChatModel]) -> None:
    ask(models[2], LONG)
    adapter = weakref.ref(models[2].adapter)
    del models[2]
    gc.collect()
    assert adapter() is None
    assert ask(models[0], LONG)[0] == 0, "a prefix of the removed adapter matches no other model"


def test_concurrent_models_reply_as_they_do_alone(
    models: list[ChatModel],
) -> None:
    request = request_for(temperature=0.0, max_tokens=12)

    def replies(together: bool) -> list[str]:
        texts = [""] * 6
        ended = [threading.Event() for _ in texts]
        for number in range(6):

            def listen(item: Delta | Usage | EmojituneError, number: int = number) -> None:
                if isinstance(item, Delta):
                    texts[number] += item.text
                else:
                    ended[number].set()

            models[number % 3].start(request, listen)
            if not together:
                assert ended[number].wait(10)
        assert all(event.wait(10) for event in ended)
        return texts

    alone = replies(together=False)
    assert replies(together=True) == alone
    assert len(set(alone)) == 3


def test_products_have_few_distinct_numbers_of_rows(
    models: list[ChatModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    multiply = PackedLinear.__call__

    def counting(self: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        seen.add(len(x))
        return multiply(self, x)

    monkeypatch.setattr(PackedLinear, "__call__", counting)
    cache = KVCache(models[0].runtime.runner)
    root = cache.match_prefix([], None).path
    for count in range(1, 130):
        [[result]] = cache.forward([[ForwardRequest(root, [40] * count)]], [models[1].adapter])
        cache.release([result.path.slots])
    assert seen == {1, 2, 3, *range(4, 64, 4), *range(64, 145, 16)}
