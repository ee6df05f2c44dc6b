import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from reference import log_probabilities

from emojitune.inference.engine.batch import ModelRunner
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, Prompt
from emojitune.inference.engine.scheduler import Decoder, Scheduler
from emojitune.inference.engine.slices import Slices
from emojitune.models.loader import LoadedHF

PROMPT = [1, 40, 41, 42, 43]


def run(
    scheduler: Scheduler,
    prompt: Sequence[int],
    steps: list[list[int]],
    *,
    reserve: int = 64,
    owner: str | None = None,
) -> list[torch.Tensor]:
    """The log-probabilities after a prompt and each of `steps`, one pass each."""
    rows: list[torch.Tensor] = []
    done = threading.Event()
    errors: list[Exception] = []

    def request(matched: Prompt) -> Decoder[None]:
        [result] = yield [ForwardRequest(matched.path, matched.uncached)]
        rows.append(result.logprobs[-1])
        for step in steps:
            [result] = yield [ForwardRequest(result.path, step)]
            rows.append(result.logprobs[-1])
        done.set()

    def failed(error: Exception) -> None:
        errors.append(error)
        done.set()

    scheduler.submit(prompt, request, reserve=reserve, on_error=failed, owner=owner)
    assert done.wait(10)
    if errors:
        raise errors[0]
    return rows


@pytest.fixture
def scheduler(runner: ModelRunner) -> Scheduler:
    return Scheduler(runner, ThreadPoolExecutor(1), capacity=10_000)


def test_a_sequence_in_steps_equals_one_pass(tiny: LoadedHF, scheduler: Scheduler) -> None:
    rows = run(scheduler, PROMPT, [[50], [51, 52], [53]])
    expected = log_probabilities(tiny.module, [*PROMPT, 50, 51, 52, 53])
    for row, place in zip(rows, (4, 5, 7, 8), strict=True):
        torch.testing.assert_close(row, expected[place], atol=1e-4, rtol=1e-4)


def test_a_cached_prompt_is_not_computed_again(tiny: LoadedHF, scheduler: Scheduler) -> None:
    first = run(scheduler, PROMPT, [])
    again = run(scheduler, PROMPT, [])
    longer = run(scheduler, [*PROMPT, 60, 61], [])
    torch.testing.assert_close(first, again, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        longer[0], log_probabilities(tiny.module, [*PROMPT, 60, 61])[-1], atol=1e-4, rtol=1e-4
    )
    matched = scheduler._cache.match_prefix([*PROMPT, 99], None)
    assert matched.cached == len(PROMPT)


def test_concurrent_requests_do_not_see_each_other(tiny: LoadedHF, scheduler: Scheduler) -> None:
    prompts = [[1, 40 + n, 41, 42 + n] for n in range(8)]
    results: dict[int, list[torch.Tensor]] = {}
    threads = [
        threading.Thread(
            target=lambda n=n: results.update({n: run(scheduler, prompts[n], [[50 + n]])})
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, prompt in enumerate(prompts):
        expected = log_probabilities(tiny.module, [*prompt, 50 + n])
        torch.testing.assert_close(results[n][0], expected[3], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(results[n][1], expected[4], atol=1e-4, rtol=1e-4)


def test_freed_slots_are_used_again(tiny: LoadedHF, scheduler: Scheduler) -> None:
    run(scheduler, PROMPT, [[50]] * 20)
    size = len(scheduler._cache._ref_counts)
    for number in range(30):
        run(scheduler, [1, 100 + number, 41], [[50]] * 20)
    assert len(scheduler._cache._ref_counts) == size
    assert np.all(scheduler._cache._ref_counts >= 0)


def test_a_request_that_fails_does_not_end_the_others(tiny: LoadedHF, scheduler: Scheduler) -> None:
    with pytest.raises(IndexError):
        run(scheduler, PROMPT, [[10**6]])  # no such token: the pass itself fails
    assert len(run(scheduler, PROMPT, [[50]])) == 2


def test_an_error_of_the_scheduler_ends_what_runs_and_nothing_later(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, cancelled: threading.Event
) -> None:
    passes: list[int] = []
    errors: list[Exception] = []
    for prompt in ([1, 2, 3], list(range(1, 200)) * 2):  # one that is computed in slices, too
        scheduler.submit(
            prompt,
            endless(passes),
            reserve=1000,
            on_error=errors.append,
            cancelled=cancelled.is_set,
        )
    while not passes:
        time.sleep(0.001)
    next_batch = scheduler._next_batch

    def failing() -> None:
        monkeypatch.setattr(scheduler, "_next_batch", next_batch)
        raise IndexError("a bug")

    monkeypatch.setattr(scheduler, "_next_batch", failing)
    while scheduler.busy:
        time.sleep(0.001)
    assert len(run(scheduler, PROMPT, [[50]])) == 2
    assert [str(error) for error in errors] == ["a bug", "a bug"]
    assert not scheduler._running


def test_a_cancelled_request_is_dropped(scheduler: Scheduler) -> None:
    passes: list[ForwardResult] = []
    cancel = threading.Event()

    def request(matched: Prompt) -> Decoder[None]:
        [result] = yield [ForwardRequest(matched.path, matched.uncached)]
        while True:
            passes.append(result)
            if len(passes) == 3:
                cancel.set()
            [result] = yield [ForwardRequest(result.path, [50])]

    scheduler.submit(PROMPT, request, reserve=64, on_error=lambda _: None, cancelled=cancel.is_set)
    assert cancel.wait(10)
    run(scheduler, [1, 90, 91], [])  # the scheduler is free for others
    assert len(passes) <= 4


def test_a_request_that_does_not_fit_waits_for_room(runner: ModelRunner) -> None:
    scheduler = Scheduler(runner, ThreadPoolExecutor(1), capacity=100)
    threads = [
        threading.Thread(target=run, args=(scheduler, [1, 40 + n], [[50]] * 5)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def endless(passes: list[int], label: int = 0) -> Callable[[Prompt], Decoder[None]]:
    """A decoder that appends its label to `passes` at each pass, and goes on until it is
    cancelled."""

    def decode(matched: Prompt) -> Decoder[None]:
        [result] = yield [ForwardRequest(matched.path, matched.uncached)]
        while True:
            passes.append(label)
            [result] = yield [ForwardRequest(result.path, [50], keep=False)]

    return decode


@pytest.fixture
def cancelled() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_long_prompt_has_the_results_of_one_pass(tiny: LoadedHF, scheduler: Scheduler) -> None:
    prompt = [1, *(40 + number % 60 for number in range(70))]
    scheduler._chunk_tokens = 16
    [row, _] = run(scheduler, prompt, [[50]])
    expected = log_probabilities(tiny.module, prompt)[-1]
    torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)
    assert scheduler._cache.match_prefix([*prompt, 50], None).cached == len(prompt)


def test_a_long_prompt_does_not_keep_others_waiting(scheduler: Scheduler) -> None:
    scheduler._chunk_tokens = 4
    order: list[str] = []
    ended = threading.Event()

    def long(matched: Prompt) -> Decoder[None]:
        order.append("long starts")
        yield [ForwardRequest(matched.path, matched.uncached)]
        order.append("long ends")
        ended.set()

    started = threading.Event()
    scheduler._executor.submit(started.wait)  # both are there when the first step begins
    scheduler.submit([1, *range(40, 240)], long, reserve=256, on_error=pytest.fail, owner="a")
    threading.Timer(0.05, started.set).start()
    run(scheduler, [1, 90], [[50]] * 5, owner="b")
    order.append("short ends")
    assert ended.wait(10)
    assert order == ["long starts", "short ends", "long ends"]


def test_a_long_prompt_is_cancelled_between_slices(scheduler: Scheduler) -> None:
    scheduler._chunk_tokens = 4
    checks = iter(range(1000))
    prompt = [1, *range(40, 240)]
    scheduler.submit(
        prompt, endless([]), reserve=256, on_error=pytest.fail, cancelled=lambda: next(checks) > 9
    )
    run(scheduler, PROMPT, [])
    while scheduler.busy:
        time.sleep(0.01)
    assert scheduler._cache._ref_counts.sum() == len(PROMPT)  # the prefix of the other
    assert next(checks) < 20


def test_a_request_that_samples_for_long_does_not_keep_others_waiting(
    scheduler: Scheduler, cancelled: threading.Event
) -> None:
    pauses: list[float] = []

    def slow(matched: Prompt) -> Decoder[None]:
        [result] = yield [ForwardRequest(matched.path, matched.uncached)]
        while not cancelled.is_set():
            pauses.append(time.perf_counter())
            time.sleep(0.005)
            yield []
        yield [ForwardRequest(result.path, [50])]
        done.set()

    done = threading.Event()
    scheduler.submit([1, 2, 3], slow, reserve=64, on_error=lambda _: None, owner="slow")
    while not pauses:
        time.sleep(0.001)
    assert len(run(scheduler, PROMPT, [[50]] * 5, owner="other")) == 6
    assert not done.is_set()
    cancelled.set()
    assert done.wait(10)


def test_a_request_that_samples_for_long_is_cancelled_between_slices(scheduler: Scheduler) -> None:
    pauses: list[int] = []
    cancelled = threading.Event()

    def slow(matched: Prompt) -> Decoder[None]:
        yield [ForwardRequest(matched.path, matched.uncached)]
        while True:
            pauses.append(1)
            time.sleep(0.002)
            yield []

    scheduler.submit(
        [1, 2, 3], slow, reserve=64, on_error=lambda _: None, cancelled=cancelled.is_set
    )
    while not pauses:
        time.sleep(0.001)
    cancelled.set()
    while scheduler.busy:
        time.sleep(0.001)
    assert not scheduler._running
    run(scheduler, PROMPT, [[50]])


def test_a_pass_takes_few_tokens_and_some_of_each_owner(
    runner: ModelRunner, monkeypatch: pytest.MonkeyPatch, cancelled: threading.Event
) -> None:
    scheduler = Scheduler(runner, ThreadPoolExecutor(1), capacity=10_000)
    scheduler._chunk_tokens = 10
    passes: list[int] = []
    sizes: list[int] = []
    forward = runner.forward
    monkeypatch.setattr(
        runner, "forward", lambda batch: sizes.append(len(batch.ids)) or forward(batch)
    )
    for number in range(40):
        scheduler.submit(
            [1, 40 + number],
            endless(passes, number),
            reserve=64,
            on_error=pytest.fail,
            cancelled=cancelled.is_set,
            owner="a",
        )
    start = len(sizes)
    run(scheduler, [1, 90], [[50]] * 10, owner="b")
    assert len(sizes) - start < 40  # 40 requests take 4 passes for one token of each
    while len(set(passes)) < 40:  # none of the many is forgotten
        time.sleep(0.01)
    assert max(sizes) <= 10


def test_a_pass_of_several_owners_has_few_tokens_of_each(
    runner: ModelRunner, monkeypatch: pytest.MonkeyPatch, cancelled: threading.Event
) -> None:
    scheduler = Scheduler(runner, ThreadPoolExecutor(1), capacity=10_000)
    scheduler._chunk_tokens = 40
    monkeypatch.setattr("emojitune.inference.engine.scheduler._MIN_SHARE", 4)
    sizes: list[int] = []
    forward = runner.forward
    monkeypatch.setattr(
        runner, "forward", lambda batch: sizes.append(len(batch.ids)) or forward(batch)
    )
    passes: list[int] = []
    for number in range(30):
        scheduler.submit(
            [1, 40 + number],
            endless(passes, number),
            reserve=64,
            on_error=pytest.fail,
            cancelled=cancelled.is_set,
            owner="a",
        )
    while len(set(passes)) < 30:
        time.sleep(0.01)
    start = len(sizes)
    run(scheduler, [1, 90], [[50]] * 10, owner="b")
    beside = sizes[start:]
    time.sleep(0.1)
    assert max(sizes) >= 30, "alone, an owner may have a pass of its own"
    assert sorted(beside)[len(beside) // 2] <= 10 + 2
    assert len(beside) >= 10


def test_one_owner_leaves_room_for_the_next(
    runner: ModelRunner, cancelled: threading.Event
) -> None:
    scheduler = Scheduler(runner, ThreadPoolExecutor(1), capacity=100)
    passes: list[int] = []
    for number in range(10):
        scheduler.submit(
            [1, 40 + number],
            endless(passes, number),
            reserve=20,
            on_error=pytest.fail,
            cancelled=cancelled.is_set,
            owner="a",
        )
    run(scheduler, [1, 90], [[50]], reserve=20, owner="b")
    assert set(passes) == {0, 1, 2, 3}


def test_a_large_request_is_not_overtaken_for_ever(
    runner: ModelRunner, cancelled: threading.Event
) -> None:
    scheduler = Scheduler(runner, ThreadPoolExecutor(1), capacity=100)

    def keep_asking(owner: str) -> None:
        while not cancelled.is_set():
            run(scheduler, [1, 40], [[50]], reserve=40, owner=owner)

    threads = [threading.Thread(target=keep_asking, args=(owner,)) for owner in "abc"]
    for thread in threads:
        thread.start()
    run(scheduler, [1, 90], [[50]], reserve=90, owner="d")
    cancelled.set()
    for thread in threads:
        thread.join()


def test_other_computations_go_on_beside_requests(scheduler: Scheduler) -> None:
    def slices() -> Slices[int]:
        for _ in range(3):
            yield
        return 7

    def endless_slices() -> Slices[int]:
        while True:
            yield

    cancelled = threading.Event()
    lasting = scheduler.compute(endless_slices(), cancelled=cancelled.is_set, owner="a")
    assert scheduler.compute(slices(), cancelled=lambda: False, owner="b").result(10) == 7
    assert len(run(scheduler, PROMPT, [[50]])) == 2
    assert not lasting.done()
    cancelled.set()
    with pytest.raises(CancelledError):
        lasting.result(10)


def test_a_cached_prefix_stays_as_long_as_a_request_extends_it(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emojitune.inference.engine.kv_cache._RETAINED_TOKENS", -1)
    run(scheduler, PROMPT, [])
    ended = threading.Event()
    references: list[int] = []

    def request(matched: Prompt) -> Decoder[None]:
        [result] = yield [ForwardRequest(matched.path, matched.uncached)]
        scheduler._cache.forget(unused_since=math.inf)
        references.extend(scheduler._cache._ref_counts[matched.path.slots])
        yield [ForwardRequest(result.path, [50])]
        ended.set()

    scheduler.submit([*PROMPT, 60], request, reserve=64, on_error=pytest.fail)
    assert ended.wait(10)
    assert references == [1] * len(PROMPT)
    scheduler._executor.submit(lambda: None).result()
    assert scheduler._cache._ref_counts.sum() == 0


def test_memory_is_given_back_a_while_after_the_last_request(
    tiny: LoadedHF, runner: ModelRunner, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(scheduler, PROMPT, [[50]])
    before = runner.bytes
    long = [1, *(40 + number % 200 for number in range(1500))]
    run(scheduler, long, [[50]], reserve=2000)
    peak = runner.bytes
    assert scheduler._cache.match_prefix([*long, 50], None).cached == len(long)
    run(scheduler, PROMPT, [[50]])
    monkeypatch.setattr("emojitune.inference.engine.scheduler._CLEANUP_AFTER", 0.0)
    scheduler._executor.submit(scheduler._clean_up).result()
    assert scheduler._cache.match_prefix([*long, 50], None).cached == len(PROMPT)  # begins alike
    assert len(scheduler._cache._ref_counts) == 1024
    assert runner.bytes - before < (peak - before) / 4
    torch.testing.assert_close(run(scheduler, PROMPT, [[50]]), first, atol=1e-4, rtol=1e-4)


def test_cleaning_up_waits_until_there_have_been_no_requests_for_a_while(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    later: list[float] = []
    monkeypatch.setattr(scheduler, "_run_later", lambda seconds, _: later.append(seconds))
    run(scheduler, PROMPT, [[50]])
    run(scheduler, PROMPT, [[50]])
    scheduler._executor.submit(lambda: None).result()
    assert later == [30.0]
    scheduler._clean_up()
    assert len(later) == 2
    assert 0 < later[1] < 30.0
