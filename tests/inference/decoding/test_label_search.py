"""The best-first search, held against the probability of every label."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from decoder_loop import run_decoder
from label_tokens import LABELS, PROMPT, STOPS, joint

from emojitune.inference.decoding import label_search
from emojitune.inference.decoding.constraint import LabelTrie
from emojitune.inference.decoding.label_search import (
    LabelQuery,
    ScoredLabel,
    TopKFound,
    exhaustive,
    mass_covered,
    rank,
)
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, KVCache, Path
from emojitune.models.loader import LoadedHF


def ranking(
    model: LoadedHF, count: int | None, width: int, labels: Sequence[Sequence[int]] = LABELS
) -> tuple[list[ScoredLabel], int]:
    """The labels that a search finds, and the number of tokens that it computes."""
    cache = KVCache(HFRunner(model.module, torch.device("cpu")))
    prompt = cache.match_prefix(PROMPT, None)
    rules = [TopKFound(count) if count else exhaustive]
    search = rank(LabelQuery(prompt, LabelTrie(labels), STOPS), rules, width=width)
    computed = 0

    def forward(requests: list[ForwardRequest]) -> list[ForwardResult]:
        nonlocal computed
        computed += sum(len(request.ids) for request in requests)
        return cache.forward([requests], [None])[0]

    return run_decoder(search, forward), computed


@pytest.mark.parametrize("width", [1, 2, 50])
@pytest.mark.parametrize("count", [1, 3, None])
def test_the_search_finds_exactly_the_labels_of_highest_joint_probability(
    tiny: LoadedHF, count: int | None, width: int
) -> None:
    expected = sorted(((joint(tiny, label), label) for label in LABELS), reverse=True)[:count]
    labels, _ = ranking(tiny, count, width)
    assert [label.tokens for label in labels][:count] == [label for _, label in expected]
    assert [label.log_probability for label in labels][:count] == pytest.approx(
        [score for score, _ in expected], abs=1e-4
    )


def test_a_search_for_the_best_label_computes_less_than_one_for_all(tiny: LoadedHF) -> None:
    with torch.no_grad():  # a model that is sure of itself, as a tuned one is
        tiny.module.get_output_embeddings().weight.mul_(10)
        likely = [30]
        for _ in range(3):
            ids = torch.tensor([[*PROMPT, *likely]])
            likely.append(int(tiny.module(ids).logits[0, -1].argmax()))
    many = [tuple(likely), *((30, 40 + n, 60 + n, 80 + n) for n in range(20))]
    _, for_one = ranking(tiny, 1, 1, many)
    _, for_all = ranking(tiny, None, 50, many)
    assert for_one < for_all / 2


def test_sampling_needs_all_but_a_thousandth_of_the_probability() -> None:
    labels = [
        ScoredLabel((1,), math.log(0.6), math.log(0.6)),
        ScoredLabel((2,), math.log(0.2), math.log(0.2)),
    ]
    covered = mass_covered(1.0)
    assert not covered(labels, [math.log(0.01)])
    assert covered(labels, [math.log(0.0007)])
    assert not mass_covered(1.5)(labels, [math.log(0.0007)]), "many small ones may add up"
    assert mass_covered(0.5)(labels, [math.log(0.01)]), "improbable ones weigh less"


def test_long_requests_do_not_share_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_search, "PASS_TOKENS", 10)
    requests = [
        ForwardRequest(Path(np.zeros(0, dtype=np.int64)), [1] * size) for size in (3, 7, 1, 30, 2)
    ]
    decoder = label_search.forward_in_groups(requests)
    sizes = [[len(one.ids) for one in next(decoder)]]
    for _ in range(3):
        sizes.append([len(one.ids) for one in decoder.send(sizes[-1])])
    assert sizes == [[3, 7], [1], [30], [2]]
    with pytest.raises(StopIteration) as ended:
        decoder.send(sizes[-1])
    assert ended.value.value == [3, 7, 1, 30, 2]
