import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from emojitune.errors import ModelError
from emojitune.inference.model_pool import GetModel, ModelPool


@dataclass(eq=False)
class Model:
    """A model, as far as a pool sees it."""

    bytes: int
    busy: bool = False


class Shelf:
    """Loads "name:size" alone, and "name:size:base" on a base; lists what was loaded."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.models: dict[str, Model] = {}

    def load(self, name: str, get: GetModel) -> Any:
        _, size, *base = name.split(":", maxsplit=2)
        for called in base:
            get(called)
        self.loaded.append(name)
        model = self.models[name] = Model(int(size))
        return model


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def held(shelf: Shelf) -> Callable[..., list[str]]:
    """The models in memory after some were requested, one after the other."""
    pool = ModelPool(shelf.load, capacity=lambda: 100)

    def ask(*names: str) -> list[str]:
        for name in names:
            pool.get(name)
        return list(pool._entries)

    return ask


def test_a_model_is_loaded_once(shelf: Shelf, held: Callable[..., list[str]]) -> None:
    held("a:10", "a:10", "x:1:a:10", "y:1:a:10", "x:1:a:10")
    assert shelf.loaded == ["a:10", "x:1:a:10", "y:1:a:10"]


def test_a_model_that_is_loaded_elsewhere_is_waited_for_without_a_thread(shelf: Shelf) -> None:
    release = threading.Event()

    def load(name: str, get: GetModel) -> Any:
        assert release.wait(10)
        return shelf.load(name, get)

    pool = ModelPool(load, capacity=lambda: 100)
    assert pool.peek("a:10") is None
    thread = threading.Thread(target=pool.get, args=("a:10",))
    thread.start()
    while (loading := pool.peek("a:10")) is None:
        time.sleep(0.01)
    assert not loading.done()
    release.set()
    thread.join()
    assert loading.result() is pool.get("a:10")
    assert shelf.loaded == ["a:10"]


def test_bytes_are_bounded_and_the_least_recently_used_goes(
    held: Callable[..., list[str]],
) -> None:
    assert set(held("a:40", "b:40", "a:40", "c:40")) == {"a:40", "c:40"}
    assert set(held(*(f"s{n}:10" for n in range(10)))) == {f"s{n}:10" for n in range(10)}


def test_a_model_larger_than_the_bound_stays_alone(held: Callable[..., list[str]]) -> None:
    assert held("a:40", "huge:500") == ["huge:500"]
    assert held("b:40") == ["b:40"]


def test_a_base_is_evicted_only_after_its_adapters(held: Callable[..., list[str]]) -> None:
    x, y = "x:5:a:50", "y:5:a:50"
    assert set(held(x, y, "b:45")) == {"a:50", y, "b:45"}
    assert set(held("c:10")) == {"b:45", "c:10"}


def test_a_base_that_is_used_through_an_adapter_is_used(held: Callable[..., list[str]]) -> None:
    held("a:30", "b:30", "x:1:a:30", "y:1:b:30", "x:1:a:30")
    assert set(held("c:50")) == {"a:30", "x:1:a:30", "c:50"}


def test_a_busy_base_stays(shelf: Shelf, held: Callable[..., list[str]]) -> None:
    held("a:60")
    shelf.models["a:60"].busy = True
    assert set(held("b:30", "c:30")) == {"a:60", "c:30"}
    shelf.models["a:60"].busy = False
    assert set(held("c:30", "d:30")) == {"c:30", "d:30"}


def test_caches_that_grow_count(shelf: Shelf, held: Callable[..., list[str]]) -> None:
    held("a:40", "b:40")
    shelf.models["b:40"].bytes = 90
    assert held("b:40") == ["b:40"]


def test_requests_while_a_model_is_loaded_wait_for_it() -> None:
    begun: list[str] = []

    def slow(name: str, _get: GetModel) -> Any:
        begun.append(name)
        time.sleep(0.2)
        return Model(1)

    pool = ModelPool(slow, capacity=lambda: 10)
    loaded: list[Any] = []
    threads = [threading.Thread(target=lambda: loaded.append(pool.get("a:1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert begun == ["a:1"]
    assert len(loaded) == 8
    assert len(set(map(id, loaded))) == 1


def test_a_model_that_could_not_be_loaded_is_tried_again() -> None:
    attempts: list[str] = []

    def fails_once(name: str, _get: GetModel) -> Any:
        attempts.append(name)
        if len(attempts) == 1:
            raise ModelError("It was torn.")
        return Model(1)

    pool = ModelPool(fails_once, capacity=lambda: 10)
    with pytest.raises(ModelError, match="torn"):
        pool.get("a:1")
    assert pool.get("a:1") is pool.get("a:1")


def test_a_forgotten_model_is_loaded_again(shelf: Shelf) -> None:
    pool = ModelPool(shelf.load, capacity=lambda: 100)
    first = pool.get("a:10")
    pool.forget("a:10")
    assert pool.get("a:10") is not first
