import math
from collections.abc import Sequence

import pytest
import torch
from label_tokens import LABELS, PROMPT, STOPS, joint

from emojitune.inference.decoding.constraint import label_trie
from emojitune.inference.decoding.label_search import BestKnown, Scored, nearly_all_known, rank
from emojitune.inference.decoding.sampling import choose, seeded
from emojitune.inference.engine.hf_runner import ModulePass
from emojitune.inference.engine.kv_cache import Forest, Growth, Prompt
from emojitune.models.loader import LoadedModel

# Token 30 opens all; (30, 33) is an end and a beginning at once; 36 stands alone.


def ranking(
    model: LoadedModel, count: int | None, width: int, labels: Sequence[Sequence[int]] = LABELS
) -> tuple[list[Scored], int]:
    """What a search finds, and how many tokens it computed."""
    forest = Forest(ModulePass(model.module, torch.device("cpu")))
    known = forest.longest_known(PROMPT, None)
    rules = [BestKnown(count)] if count else [lambda found, open_scores: False]
    search = rank(PROMPT, Prompt(known.path, 0), label_trie(labels), STOPS, rules, width=width)
    growths: list[Growth] = next(search)
    computed = 0
    while True:
        computed += sum(len(growth.ids) for growth in growths)
        try:
            growths = search.send(forest.grow([growths], [None])[0])
        except StopIteration as stop:
            return stop.value, computed


@pytest.mark.parametrize("width", [1, 2, 50])
@pytest.mark.parametrize("count", [1, 3, None])
def test_the_search_finds_exactly_the_labels_of_highest_joint_probability(
    tiny: LoadedModel, count: int | None, width: int
) -> None:
    expected = sorted(((joint(tiny, label), label) for label in LABELS), reverse=True)[:count]
    found, _ = ranking(tiny, count, width)
    assert [scored.tokens for scored in found][:count] == [label for _, label in expected]
    assert [scored.log_probability for scored in found][:count] == pytest.approx(
        [score for score, _ in expected], abs=1e-4
    )


def test_a_search_for_the_best_looks_at_less_than_one_for_all(tiny: LoadedModel) -> None:
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


def test_a_draw_needs_all_but_a_thousandth_of_the_probability() -> None:
    found = [Scored((1,), math.log(0.6), math.log(0.6)), Scored((2,), math.log(0.2), math.log(0.2))]
    enough = nearly_all_known(1.0)
    assert not enough(found, [math.log(0.01)])
    assert enough(found, [math.log(0.0007)])
    assert not nearly_all_known(1.5)(found, [math.log(0.0007)]), "many small ones may add up"
    assert nearly_all_known(0.5)(found, [math.log(0.01)]), "what is improbable weighs less"


def test_a_trie_knows_what_follows_and_where_a_label_ends() -> None:
    trie = label_trie(LABELS)
    assert set(trie.allowed_tokens(trie.start)) == {30, 36}
    state = trie.advance(trie.advance(trie.start, 30), 33)
    assert trie.can_end(state)
    assert trie.allowed_tokens(state) == (35,)
    assert not trie.can_end(trie.start)


def test_temperature_zero_takes_the_most_probable() -> None:
    rows = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    assert choose(rows, temperature=0.0, top_p=1.0, generator=seeded(None, 0)) == 1


def test_draws_follow_the_distribution() -> None:
    rows = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    generator = seeded(0, 0)
    draws = [choose(rows, temperature=1.0, top_p=1.0, generator=generator) for _ in range(4000)]
    shares = [draws.count(i) / len(draws) for i in range(3)]
    assert shares == pytest.approx([0.2, 0.5, 0.3], abs=0.04)


def test_a_nucleus_leaves_the_improbable_out() -> None:
    rows = torch.log(torch.tensor([0.2, 0.5, 0.3]))
    generator = seeded(0, 0)
    draws = {choose(rows, temperature=1.0, top_p=0.7, generator=generator) for _ in range(200)}
    assert draws == {1, 2}
    assert choose(rows, temperature=1.0, top_p=0.0, generator=generator) == 1


def test_impossible_entries_are_never_drawn() -> None:
    rows = torch.tensor([-math.inf, 0.0])
    generator = seeded(0, 0)
    assert {choose(rows, temperature=2.0, top_p=1.0, generator=generator) for _ in range(50)} == {1}


def test_a_seed_and_an_index_fix_a_draw() -> None:
    rows = torch.zeros(1000)

    def draw(seed: int, index: int) -> int:
        return choose(rows, temperature=1.0, top_p=1.0, generator=seeded(seed, index))

    assert draw(5, 0) == draw(5, 0)
    assert draw(5, 0) != draw(5, 1)
    assert draw(5, 0) != draw(6, 0)
    assert draw(-5, 0) == draw(-5, 0)
