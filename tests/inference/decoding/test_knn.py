"""Labels scored by the examples that are similar to a prompt, held against sums by hand."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from decoder_loop import run_decoder
from gathered import LABELS as WORDS
from gathered import USER, ask, request_for, text
from label_tokens import LABELS, PROMPT, STOPS, joint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_model import chat_tiny, load_tiny, make_adapter, make_tiny_base
from torch import Tensor

from emojitune.errors import ModelError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.decoding import knn
from emojitune.inference.decoding.constraint import LabelTrie
from emojitune.inference.decoding.knn import (
    KNNDatastore,
    KNNScorer,
    hidden_states,
    round_robin,
    verify,
)
from emojitune.inference.decoding.label_search import (
    LabelQuery,
    ScoredLabel,
    ScorerFactory,
    StopRule,
    TopKFound,
    exhaustive,
    mass_covered,
    rank,
)
from emojitune.inference.engine import cache_attention
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, KVCache
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.models.loader import LoadedHF


def states(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def end(trie: LabelTrie, label: Sequence[int]) -> int:
    state = trie.start
    for token in label:
        state = trie.advance(state, token)
    return state


def test_similarity_is_a_power_of_the_sum_over_the_examples_of_a_reply() -> None:
    examples, replies = states(5), [0, 2, 0, 1, 2]
    center, state = examples.mean(0), states(1, seed=1)[0]
    expected = [math.exp(-1 / 0.075)] * 4  # the fourth reply has no example
    for example, reply in zip(examples, replies, strict=True):
        a, b = state - center, example - center
        expected[reply] += math.exp(float(a @ b / (a.norm() * b.norm())) / 0.075)
    similarities = KNNDatastore.of(examples, replies).similarity(state, 4)
    assert similarities == pytest.approx([total**1.15 for total in expected], rel=1e-4)


def test_no_label_exceeds_the_bounds_of_the_paths_to_it() -> None:
    chance = random.Random(1)
    labels = [tuple(chance.choices(range(3), k=chance.randint(1, 5))) for _ in range(40)]
    trie = LabelTrie(labels)
    ends = {end(trie, label): chance.uniform(0.001, 50) for label in set(labels)}
    scorer = KNNScorer(trie, ends)
    for label in set(labels):
        for cut in range(len(label) + 1):
            state = end(trie, label[:cut])
            below = [end(trie, other) for other in set(labels) if other[:cut] == label[:cut]]
            log_probabilities = [-2.0 - chance.random() for _ in below]
            scores = [
                math.exp(scorer.score(log_probability, one))
                for one, log_probability in zip(below, log_probabilities, strict=True)
            ]
            assert sum(scores) <= math.exp(scorer.mass_bound(-2.0, state)) * (1 + 1e-9)
            assert max(scores) <= math.exp(scorer.upper_bound(-2.0, state)) * (1 + 1e-9)


def ranked(
    model: LoadedHF,
    make_scorer: ScorerFactory,
    rules: Sequence[StopRule],
    labels: Sequence[Sequence[int]] = LABELS,
    opened: Callable[[int], None] = lambda _count: None,
) -> list[ScoredLabel]:
    """The labels that a search finds; `opened` is called with the number of paths of each pass."""
    cache = KVCache(HFRunner(model.module, torch.device("cpu")))
    prompt = cache.match_prefix(PROMPT, None)
    search = rank(LabelQuery(prompt, LabelTrie(labels), STOPS, make_scorer), rules, width=1)

    def forward(requests: list[ForwardRequest]) -> list[ForwardResult]:
        opened(len(requests))
        return cache.forward([requests], [None])[0]

    return run_decoder(search, forward)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("count", "rules"),
    [
        (1, [TopKFound(1)]),
        (2, [TopKFound(2)]),
        (1, [TopKFound(1), mass_covered(1.0)]),
        (2, [TopKFound(2), mass_covered(1.0)]),
        (None, [exhaustive]),
    ],
)
def test_the_search_finds_the_labels_of_the_best_scores(
    tiny: LoadedHF, seed: int, count: int | None, rules: list[StopRule]
) -> None:
    chance = random.Random(seed)
    similarity = {label: math.exp(chance.uniform(-8, 8)) for label in LABELS}
    trie, states_seen = LabelTrie(LABELS), []

    def make_scorer(state: Tensor) -> KNNScorer:
        states_seen.append(state)
        return KNNScorer(trie, {end(trie, label): similarity[label] for label in LABELS})

    labels = ranked(tiny, make_scorer, rules)
    expected = {label: 0.46 * joint(tiny, label) + math.log(similarity[label]) for label in LABELS}
    best = sorted(LABELS, key=lambda label: -expected[label])[:count]
    assert [label.tokens for label in labels][:count] == best
    for label in labels:
        assert label.score == pytest.approx(expected[label.tokens], abs=1e-3)
        assert label.log_probability == pytest.approx(joint(tiny, label.tokens), abs=1e-3)
    with torch.no_grad():
        layers = tiny.module(torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(states_seen[0], layers[1][0, -1], atol=1e-4, rtol=1e-4)


def test_many_labels_with_one_prefix_do_not_make_one_of_them_likelier(tiny: LoadedHF) -> None:
    labels = [(30, 31, token, 32) for token in range(40, 60)] + [(36, token) for token in (37, 38)]
    trie = LabelTrie(labels)

    def opened(rules: list[StopRule], seed: int) -> tuple[tuple[int, ...], int]:
        chance, counts = random.Random(seed), list[int]()
        shared = {end(trie, label): chance.uniform(1, 3) for label in labels[:20]}
        similarity = shared | {end(trie, label): chance.uniform(10, 15) for label in labels[20:]}
        scorer = KNNScorer(trie, similarity)
        [best, *_] = ranked(tiny, lambda _state: scorer, rules, labels, counts.append)
        return best.tokens, sum(counts)

    # A rule that is always content, but not about the best label alone.
    bound_by_sums: list[StopRule] = [TopKFound(1), lambda _found, _open_bounds: True]
    fewer = [opened([TopKFound(1)], seed) for seed in range(10)]
    more = [opened(bound_by_sums, seed) for seed in range(10)]
    assert [best for best, _ in fewer] == [best for best, _ in more]
    assert sum(count for _, count in fewer) < 0.8 * sum(count for _, count in more)


@pytest.mark.parametrize("at_once", [False, True])
def test_hidden_states_are_those_of_each_prompt_alone(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:  # as prompts that fill the context are
        monkeypatch.setattr(knn, "_PASS_TOKENS", 50)
        monkeypatch.setattr(cache_attention, "_MANY_SCORES", 0)
    adapter = make_adapter(tiny_base, tmp_path / "adapter", 1)
    model = chat_tiny(tiny_base, adapter)
    prompts = [(1, 40, 41, *range(50, 50 + length)) for length in (*range(1, 40), 1, 7)]
    states = hidden_states(model.runtime.runner, model.adapter, prompts, lambda: None)
    alone = load_tiny(tiny_base, adapter).module
    for prompt, state in zip(prompts, states, strict=True):
        with torch.no_grad():
            layers = alone(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(state, layers[1][0, -1], atol=1e-3, rtol=1e-3)


def test_hidden_states_leave_the_cache_empty(tiny_base: Path) -> None:
    runner = chat_tiny(tiny_base).runtime.runner
    assert isinstance(runner, LlamaRunner)
    prompts = [(1, *range(40, 60), number) for number in range(100)]
    hidden_states(runner, None, prompts, lambda: None)
    assert len(runner._keys[0]) <= 1024, "slots are used again"


def test_each_reply_has_a_turn_before_any_has_a_second() -> None:
    assert round_robin([0, 0, 0, 1, 1, 2]) == [0, 3, 5, 1, 4, 2]


def test_a_datastore_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    made = KNNDatastore.of(states(6), [0, 1, 2, 0, 1, 2])
    made.save(tmp_path)
    loaded = KNNDatastore.load(tmp_path, 3)
    assert loaded is not None
    torch.testing.assert_close(loaded.keys, made.keys, atol=1e-3, rtol=1e-3)
    assert torch.equal(loaded.center, made.center)
    assert torch.equal(loaded.replies, made.replies)
    assert KNNDatastore.load(tmp_path / "elsewhere", 3) is None


@pytest.mark.parametrize("damage", ["cut", "missing", "count", "shape", "nan"])
def test_a_damaged_datastore_is_reported(tmp_path: Path, damage: str) -> None:
    KNNDatastore.of(states(6), [0, 1, 2, 0, 1, 2]).save(tmp_path)
    [file] = tmp_path.iterdir()
    tensors = load_file(file)
    match damage:
        case "cut":
            file.write_bytes(file.read_bytes()[:-5])
        case "missing":
            del tensors["center"]
        case "shape":
            tensors["keys"] = tensors["keys"][:-1]
        case "nan":
            tensors["center"][0] = math.nan
    if damage != "cut":
        with safe_open(file, "pt") as written:
            metadata = written.metadata()
        save_file(tensors, file, metadata=metadata)
    with pytest.raises(ModelError, match=r"neighbours\.safetensors"):
        KNNDatastore.load(tmp_path, 2 if damage == "count" else 3)


def test_a_flipped_bit_is_found(tiny_base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_base, tmp_path / "adapter", 1, WORDS)
    verify(adapter)
    KNNDatastore.of(states(6), [0, 1, 2, 0, 1, 2]).save(adapter)
    verify(adapter)
    file = adapter / "neighbours.safetensors"
    content = bytearray(file.read_bytes())
    content[-16] ^= 1
    file.write_bytes(content)
    assert KNNDatastore.load(adapter, len(WORDS)) is not None, "each number is still finite"
    with pytest.raises(ModelError, match="not what was written"):
        verify(adapter)


def test_the_same_examples_make_the_same_bytes(tmp_path: Path) -> None:
    made = KNNDatastore.of(states(6), [0, 1, 2, 0, 1, 2])
    written = set()
    for _ in range(20):
        made.save(tmp_path)
        written.add((tmp_path / "neighbours.safetensors").read_bytes())
    assert len(written) == 1


def test_states_of_other_layers_are_not_compared(tmp_path: Path) -> None:
    """As an earlier version wrote them."""
    KNNDatastore.of(states(6), [0, 1, 2, 0, 1, 2]).save(tmp_path)
    [file] = tmp_path.iterdir()
    save_file(load_file(file), file)
    assert KNNDatastore.load(tmp_path, 3) is None


@pytest.mark.parametrize("way", ["fast", "modules"])
def test_hidden_states_are_summed_over_three_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "modules":
        monkeypatch.setattr("emojitune.models.backend.read_llama", lambda folder: None)
    base = make_tiny_base(tmp_path / "base", layers=16)
    prompts = [(1, 40, 41), (1, 42, 43, 44)]
    states = hidden_states(chat_tiny(base).runtime.runner, None, prompts, lambda: None)
    module = load_tiny(base).module
    for prompt, state in zip(prompts, states, strict=True):
        with torch.no_grad():
            layers = module(torch.tensor([prompt]), output_hidden_states=True).hidden_states
        expected = sum(layers[number][0, -1] for number in (12, 13, 14))
        torch.testing.assert_close(state, expected, atol=1e-3, rtol=1e-3)


def label_of(model: ChatModel, **parameters: object) -> str:
    [deltas], _ = ask(model, request_for(temperature=0.0, **parameters))
    return text(deltas)


def test_a_model_replies_as_the_examples_similar_to_a_prompt(
    tiny_base: Path, tmp_path: Path
) -> None:
    adapter = make_adapter(tiny_base, tmp_path / "adapter", None, WORDS)
    alone = chat_tiny(tiny_base, adapter)
    usual = label_of(alone)
    other = next(number for number, label in enumerate(WORDS) if number and label != usual)
    prompt = alone.runtime.renderer.render_prompt([USER])
    own = hidden_states(alone.runtime.runner, alone.adapter, [prompt], lambda: None)
    examples = torch.cat([own.repeat(4, 1), own + 1])
    KNNDatastore.of(examples, [other] * 4 + [0]).save(adapter)
    tuned = chat_tiny(tiny_base, adapter)
    assert label_of(tuned) == WORDS[other] != usual
    assert label_of(tuned, labels=(usual, WORDS[other])) == WORDS[other], "of a subset of them too"
    assert label_of(tuned, labels=(*WORDS, "(cat)")) == usual, "not where one has no examples"
    assert tuned.bytes > alone.bytes


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_the_best_label_under_noise_is_a_sample_at_the_temperature(temperature: float) -> None:
    trie, chance = LabelTrie(LABELS), random.Random(2)
    ends = [end(trie, label) for label in LABELS]
    log_probabilities = [chance.uniform(-6, -1) for _ in LABELS]
    scorer = KNNScorer(trie, {one: chance.uniform(0.1, 3) for one in ends})
    plain = [scorer.score(*pair) for pair in zip(log_probabilities, ends, strict=True)]
    expected = torch.softmax(torch.tensor(plain) / temperature, 0)
    generator, counts = torch.Generator().manual_seed(1), [0] * len(LABELS)
    for _ in range(4000):
        noisy = scorer.with_gumbel_noise(temperature, generator)
        scores = [noisy.score(*pair) for pair in zip(log_probabilities, ends, strict=True)]
        counts[scores.index(max(scores))] += 1
    assert [count / 4000 for count in counts] == pytest.approx(expected.tolist(), abs=0.03)


def test_replies_of_a_model_with_examples_are_sampled_too(tiny_base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_base, tmp_path / "adapter", None, WORDS)
    KNNDatastore.of(torch.randn(10, 32), [0, 1, 2, 3, 4] * 2).save(adapter)
    tuned = chat_tiny(tiny_base, adapter)

    def sampled(seed: int, n: int = 1) -> list[str]:
        replies, _ = ask(tuned, request_for(temperature=2.0, seed=seed, n=n))
        return [text(deltas) for deltas in replies]

    labels = {reply for seed in range(20) for reply in sampled(seed)}
    assert len(labels) > 1
    assert labels <= set(WORDS)
    assert sampled(3) == sampled(3)
    assert set(sampled(3, n=8)) <= set(WORDS)
