import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import chat_tiny

from emojitune.inference.engine.batch import ForwardPass
from emojitune.inference.engine.hf_runner import ModulePass
from emojitune.inference.engine.kv_cache import Forest, Grown, Growth, Prompt
from emojitune.inference.engine.scheduler import Engine, Request
from emojitune.models.loader import LoadedModel

PROMPT = [1, 40, 41, 42, 43]


def plain(model: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities after each of `ids`, without any cache."""
    with torch.no_grad():
        return torch.log_softmax(model.module(torch.tensor([list(ids)])).logits[0].float(), -1)


def run(engine: Engine, prompt: Sequence[int], steps: list[list[int]]) -> list[torch.Tensor]:
    """Grow a prompt by `steps`, one pass each; the log-probabilities after each pass."""
    found: list[torch.Tensor] = []
    done = threading.Event()
    errors: list[Exception] = []

    def request(known: Prompt) -> Request:
        [grown] = yield [Growth(known.path, list(prompt[known.cached :]))]
        found.append(grown.rows[-1])
        for step in steps:
            [grown] = yield [Growth(grown.path, step)]
            found.append(grown.rows[-1])
        done.set()

    def failed(error: Exception) -> None:
        errors.append(error)
        done.set()

    engine.submit(prompt, request, reserve=64, on_error=failed)
    assert done.wait(10)
    if errors:
        raise errors[0]
    return found


@pytest.fixture(params=["packed", "modules"])
def forward(request: pytest.FixtureRequest, tiny_base: Path, tiny: LoadedModel) -> ForwardPass:
    """All this must hold for Llamas, and for models that only their own modules can run."""
    if request.param == "modules":
        return ModulePass(tiny.module, torch.device("cpu"))
    return chat_tiny(tiny_base).base.forward


@pytest.fixture
def engine(forward: ForwardPass) -> Engine:
    return Engine(forward, ThreadPoolExecutor(1))


def test_step_by_step_is_all_at_once(tiny: LoadedModel, engine: Engine) -> None:
    found = run(engine, PROMPT, [[50], [51, 52], [53]])
    expected = plain(tiny, [*PROMPT, 50, 51, 52, 53])
    for mine, place in zip(found, (4, 5, 7, 8), strict=True):
        torch.testing.assert_close(mine, expected[place], atol=1e-4, rtol=1e-4)


def test_a_known_prompt_is_not_computed_again(tiny: LoadedModel, engine: Engine) -> None:
    first = run(engine, PROMPT, [])
    again = run(engine, PROMPT, [])
    longer = run(engine, [*PROMPT, 60, 61], [])
    torch.testing.assert_close(first, again, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(longer[0], plain(tiny, [*PROMPT, 60, 61])[-1], atol=1e-4, rtol=1e-4)
    known = engine._forest.longest_known([*PROMPT, 99], None)
    assert known.cached == len(PROMPT)


def test_requests_at_the_same_time_do_not_see_each_other(tiny: LoadedModel, engine: Engine) -> None:
    prompts = [[1, 40 + n, 41, 42 + n] for n in range(8)]
    results: dict[int, list[torch.Tensor]] = {}
    threads = [
        threading.Thread(
            target=lambda n=n: results.update({n: run(engine, prompts[n], [[50 + n]])})
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, prompt in enumerate(prompts):
        expected = plain(tiny, [*prompt, 50 + n])
        torch.testing.assert_close(results[n][0], expected[3], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(results[n][1], expected[4], atol=1e-4, rtol=1e-4)


def test_branches_of_one_path_share_it_and_nothing_else(
    tiny: LoadedModel, forward: ForwardPass
) -> None:
    forest = Forest(forward)
    [[root]] = forest.grow([[Growth(forest.longest_known([], None).path, PROMPT)]], [None])
    [[left, right]] = forest.grow(
        [[Growth(root.path, [50, 51], [[7, 8], [9]]), Growth(root.path, [60])]], [None]
    )
    expected = plain(tiny, [*PROMPT, 50, 51])
    torch.testing.assert_close(left.rows[0], expected[-2, [7, 8]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left.rows[1], expected[-1, [9]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(right.rows[0], plain(tiny, [*PROMPT, 60])[-1], atol=1e-4, rtol=1e-4)
    assert set(left.path.slots) & set(right.path.slots) == set(root.path.slots)


def test_requests_of_very_different_lengths_share_a_pass(
    tiny: LoadedModel, forward: ForwardPass
) -> None:
    forest = Forest(forward)
    empty = forest.longest_known([], None).path
    prompts = [[1, 40], list(range(1, 120)), [1, 41, 42], list(range(3, 100))]
    grown = forest.grow([[Growth(empty, prompt)] for prompt in prompts], [None] * 4)
    for [one], prompt in zip(grown, prompts, strict=True):
        torch.testing.assert_close(one.rows[-1], plain(tiny, prompt)[-1], atol=1e-4, rtol=1e-4)


def test_freed_slots_are_used_again(tiny: LoadedModel, engine: Engine) -> None:
    run(engine, PROMPT, [[50]] * 20)
    size = len(engine._forest._holders)
    for number in range(30):
        run(engine, [1, 100 + number, 41], [[50]] * 20)
    assert len(engine._forest._holders) == size
    assert np.all(engine._forest._holders >= 0)


def test_a_request_that_fails_does_not_end_the_others(tiny: LoadedModel, engine: Engine) -> None:
    with pytest.raises(IndexError):
        run(engine, PROMPT, [[10**6]])  # no such token: the pass itself fails
    assert len(run(engine, PROMPT, [[50]])) == 2


def test_a_cancelled_request_is_dropped(engine: Engine) -> None:
    passes: list[Grown] = []
    cancel = threading.Event()

    def request(known: Prompt) -> Request:
        [grown] = yield [Growth(known.path, PROMPT[known.cached :])]
        while True:
            passes.append(grown)
            if len(passes) == 3:
                cancel.set()
            [grown] = yield [Growth(grown.path, [50])]

    engine.submit(PROMPT, request, reserve=64, on_error=lambda _: None, cancelled=cancel.is_set)
    assert cancel.wait(10)
    run(engine, [1, 90, 91], [])  # the engine is free for others
    assert len(passes) <= 4


def test_a_request_that_does_not_fit_waits_for_room(forward: ForwardPass) -> None:
    engine = Engine(forward, ThreadPoolExecutor(1), capacity=100)
    threads = [
        threading.Thread(target=run, args=(engine, [1, 40 + n], [[50]] * 5)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_cache_that_was_needed_once_is_given_back(
    tiny: LoadedModel, forward: ForwardPass, engine: Engine
) -> None:
    first = run(engine, PROMPT, [[50]])
    before = forward.bytes
    forest = engine._forest
    empty = forest.longest_known([], None).path
    rows = [[Growth(empty, range(1, 201))] for _ in range(40)]
    grown = forest.grow(rows, [None] * 40)
    peak = forward.bytes
    assert peak > before
    forest.release([one.path.slots for [one] in grown])
    again = run(engine, PROMPT, [[50]])  # what is left is still what it was
    torch.testing.assert_close(first, again, atol=1e-4, rtol=1e-4)
    engine._executor.submit(lambda: None).result()
    assert len(forest._holders) == 1024
    assert forward.bytes - before < (peak - before) / 4
    torch.testing.assert_close(run(engine, PROMPT, [[50]]), first, atol=1e-4, rtol=1e-4)
