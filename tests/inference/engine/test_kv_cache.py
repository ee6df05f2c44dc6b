"""Forward passes over the cache, held against passes without one."""

import pytest
import torch
from reference import log_probabilities

from emojitune.inference.engine import kv_cache
from emojitune.inference.engine.batch import ModelRunner
from emojitune.inference.engine.kv_cache import ForwardRequest, KVCache
from emojitune.models.loader import LoadedHF

PROMPT = [1, 40, 41, 42, 43]


def test_branches_of_one_path_share_nothing_else(tiny: LoadedHF, runner: ModelRunner) -> None:
    cache = KVCache(runner)
    [[root]] = cache.forward([[ForwardRequest(cache.match_prefix([], None).path, PROMPT)]], [None])
    [[left, right]] = cache.forward(
        [[ForwardRequest(root.path, [50, 51], [[7, 8], [9]]), ForwardRequest(root.path, [60])]],
        [None],
    )
    expected = log_probabilities(tiny.module, [*PROMPT, 50, 51])
    torch.testing.assert_close(left.logprobs[0], expected[-2, [7, 8]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(left.logprobs[1], expected[-1, [9]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        right.logprobs[0], log_probabilities(tiny.module, [*PROMPT, 60])[-1], atol=1e-4, rtol=1e-4
    )
    assert set(left.path.slots) & set(right.path.slots) == set(root.path.slots)


def test_requests_of_very_different_lengths_share_a_pass(
    tiny: LoadedHF, runner: ModelRunner
) -> None:
    cache = KVCache(runner)
    empty = cache.match_prefix([], None).path
    prompts = [[1, 40], list(range(1, 120)), [1, 41, 42], list(range(3, 100))]
    results = cache.forward([[ForwardRequest(empty, prompt)] for prompt in prompts], [None] * 4)
    for [one], prompt in zip(results, prompts, strict=True):
        torch.testing.assert_close(
            one.logprobs[-1], log_probabilities(tiny.module, prompt)[-1], atol=1e-4, rtol=1e-4
        )


def test_prompts_that_are_no_longer_used_are_forgotten_but_for_the_latest(
    runner: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    cache = KVCache(runner, clock=lambda: now[0])
    prompts = [tuple(range(first, first + 200)) for first in (1, 51, 101)]
    for prompt in prompts * 2:
        matched = cache.match_prefix(prompt, None)
        [[result]] = cache.forward([[ForwardRequest(matched.path, matched.uncached)]], [None])
        cache.insert(prompt, None, result.path)
        cache.release([result.path.slots[matched.cached :]])
        now[0] += 10.0

    def cached() -> list[int]:
        return [cache.match_prefix((*prompt, 1), None).cached for prompt in prompts]

    cache.forget(unused_since=60.0)  # all together are few
    assert cached() == [200, 200, 200]
    monkeypatch.setattr(kv_cache, "_RETAINED_TOKENS", 250)
    cache.forget(unused_since=30.0)
    assert cached() == [200, 200, 200]
    cache.forget(unused_since=100.0)
    assert cached() == [0, 0, 200]


def test_held_slots_are_compacted_and_keep_their_content(
    tiny: LoadedHF, runner: ModelRunner
) -> None:
    cache = KVCache(runner)
    empty = cache.match_prefix([], None).path
    [[large]] = cache.forward([[ForwardRequest(empty, [5] * 1500)]], [None])
    [[prompt]] = cache.forward([[ForwardRequest(empty, PROMPT)]], [None])
    cache.insert(tuple(PROMPT), None, prompt.path)
    cache.release([large.path.slots, prompt.path.slots])
    before = runner.bytes
    cache.compact()
    assert runner.bytes < before
    matched = cache.match_prefix([*PROMPT, 50], None)
    assert list(matched.path.slots) == list(range(len(PROMPT)))
    [[result]] = cache.forward([[ForwardRequest(matched.path, [50])]], [None])
    expected = log_probabilities(tiny.module, [*PROMPT, 50])[-1]
    torch.testing.assert_close(result.logprobs[0], expected, atol=1e-4, rtol=1e-4)
