"""The pool over the real loader, with a tiny base and models tuned on it."""

import gc
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import float32, make_adapter

from emojitune.inference.chat_model import ChatModel
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.inference.loading import load_base
from emojitune.inference.model_pool import ModelPool
from emojitune.models import backend, loader
from emojitune.server.models.loading import capacity, model_loader
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.models import FineTunedModel, ModelStore

TUNED = [f"ft:gpt-3.5-turbo-0125:local::{number}" for number in range(3)]


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(home=tmp_path / "home", base_model=str(tiny_base), device="cpu")


@pytest.fixture
def pool(settings: Settings, tiny_base: Path) -> Iterator[ModelPool]:
    """With three models tuned on the tiny base."""
    database = open_database(settings.home)
    models = ModelStore(database, "default")
    for number, name in enumerate(TUNED):
        make_adapter(tiny_base, settings.adapters / str(number), number, ("(party)",))
        base = str(tiny_base.resolve())
        models.register(FineTunedModel(name, 1, "job", base, "gpt-3.5-turbo", str(number)))
    yield ModelPool(model_loader(settings, models), capacity=lambda: 2**30)
    database.close()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of what was loaded, in order."""
    found: list[str] = []

    def count(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            found.append(name)
            return real(*arguments)

        monkeypatch.setattr(owner, name, counted)

    count(loader, "load_hf")
    count(loader, "load_llama")
    count(LlamaRunner, "make_adapter")
    return found


def get(pool: ModelPool, name: str) -> ChatModel:
    model = pool.get(name)
    assert isinstance(model, ChatModel)
    return model


def test_the_models_of_a_base_share_it(pool: ModelPool, loads: list[str], tiny_base: Path) -> None:
    bare, first, second = (get(pool, name) for name in (str(tiny_base.resolve()), *TUNED[:2]))
    assert loads == ["load_llama", "make_adapter", "make_adapter"]
    assert bare.runtime is first.runtime is second.runtime
    assert (bare.vocabulary, first.vocabulary) == ((), ("(party)",))
    assert first.bytes == second.bytes < bare.bytes


def test_other_work_comes_between_the_layers_of_a_load(tiny_base: Path) -> None:
    order: list[str] = []

    class Shared(ThreadPoolExecutor):
        """The thread that computes; each submission of a load is followed by another's pass."""

        def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Any:
            def recorded() -> Any:
                order.append("load")
                return work(*arguments, **options)

            future = super().submit(recorded)
            super().submit(order.append, "pass")
            return future

    with Shared(1) as executor:
        load_base(backend.choose_backend(tiny_base), float32(), executor)
    layers = 2
    assert order.count("load") > layers
    assert order == ["load", "pass"] * order.count("load")


def test_simultaneous_requests_load_a_model_once(pool: ModelPool, loads: list[str]) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(pool.get, [*TUNED] * 8))
    assert sorted(loads) == ["load_llama", *["make_adapter"] * 3]


def test_a_deleted_model_leaves_the_memory_and_its_base_stays(
    pool: ModelPool, loads: list[str]
) -> None:
    base, adapter = get(pool, TUNED[0]).runtime, weakref.ref(get(pool, TUNED[0]).adapter)
    pool.forget(TUNED[0])
    gc.collect()
    assert adapter() is None
    assert get(pool, TUNED[1]).runtime is base


def test_adapters_of_other_backends_are_merged_into_weights_of_their_own(
    pool: ModelPool, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "has_all_weights", lambda *_: False)
    first, second = get(pool, TUNED[0]), get(pool, TUNED[1])
    assert loads == ["load_hf", "load_hf"]
    assert first.runtime is not second.runtime
    assert first.vocabulary == ("(party)",)
    assert first.bytes == second.bytes > 10_000


def test_models_get_a_quarter_of_the_memory_of_their_device(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert capacity(settings.model_copy(update={"chat_memory": 5})) == 5
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert capacity(settings) == machine // 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1, 8_000))
    assert capacity(settings.model_copy(update={"device": "auto"})) == 2_000
    assert capacity(settings) == machine // 4, "models run on the processor"
