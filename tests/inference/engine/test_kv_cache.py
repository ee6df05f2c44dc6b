"""Forward passes over the cache, held against passes without one."""

import torch
from reference import log_probabilities

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
