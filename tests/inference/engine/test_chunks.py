"""Chunked prefill, held against the same requests in one pass."""

import pytest
import torch

from emojitune.inference.engine.batch import ModelRunner
from emojitune.inference.engine.chunks import forward_in_chunks
from emojitune.inference.engine.kv_cache import ForwardRequest, KVCache, Path
from emojitune.inference.engine.slices import compute

PROMPT = [1, 40, 41, 42, 43]
EVERYTHING = range(300)


def branches(parent: Path) -> list[ForwardRequest]:
    """Requests of every form: of all tokens or some, of several rows, of a hidden state."""
    return [
        ForwardRequest(parent, range(50, 63)),
        ForwardRequest(parent, range(70, 79), [[5, 6], None, [7]], hidden_at=4),
        ForwardRequest(parent, [80], ()),
        ForwardRequest(parent, range(90, 95), [EVERYTHING] * 5, keep=False, hidden_at=0),
    ]


def cached_prompt(cache: KVCache) -> Path:
    [[result]] = cache.forward(
        [[ForwardRequest(cache.match_prefix([], None).path, PROMPT)]], [None]
    )
    return result.path


@pytest.mark.parametrize("chunk_tokens", [1, 3, 8, 1000])
def test_chunks_have_the_results_of_one_pass(runner: ModelRunner, chunk_tokens: int) -> None:
    cache = KVCache(runner)
    requests = branches(cached_prompt(cache))
    [expected] = cache.forward([requests], [None])
    results = compute(forward_in_chunks(cache, requests, None, chunk_tokens))
    for result, other in zip(results, expected, strict=True):
        assert len(result.path) == len(other.path)
        assert len(result.logprobs) == len(other.logprobs)
        for row, same in zip(result.logprobs, other.logprobs, strict=True):
            torch.testing.assert_close(row, same, atol=1e-4, rtol=1e-4)
        assert (result.hidden_state is None) == (other.hidden_state is None)
        if result.hidden_state is not None:
            torch.testing.assert_close(
                result.hidden_state, other.hidden_state, atol=1e-4, rtol=1e-4
            )


def test_a_pass_has_no_more_tokens_than_a_chunk(
    runner: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = KVCache(runner)
    requests = branches(cached_prompt(cache))
    passes = []
    forward = runner.forward
    monkeypatch.setattr(
        runner, "forward", lambda batch: passes.append(len(batch.ids)) or forward(batch)
    )
    compute(forward_in_chunks(cache, requests, None, 8))
    assert passes == [8, 8, 8, 4]


def test_what_is_closed_early_holds_no_slots(runner: ModelRunner) -> None:
    cache = KVCache(runner)
    parent = cached_prompt(cache)
    for advanced in range(1, 7):
        slices = forward_in_chunks(cache, branches(parent), None, 4)
        for _ in zip(range(advanced), slices, strict=False):
            pass
        slices.close()
        assert cache._ref_counts.sum() == len(PROMPT)
