"""Free replies with foresight are those without it, in fewer passes."""

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from emojitune.inference.decoding.constraint import label_trie
from emojitune.inference.decoding.knn import NeighbourWeights
from emojitune.inference.decoding.label_sampling import Sampling
from emojitune.inference.decoding.sampling import TokenScore, shapes_of
from emojitune.inference.decoding.speculative import MOST_DROPPED, Foresight, reply_freely
from emojitune.inference.engine.kv_cache import Grown, Growth, Path, Prompt

VOCABULARY, STOP = 24, 23
PROMPT = (1, 2, 3)
# Some begin alike, one is the beginning of another, one has no end of its own.
SET = [(5, 6, 7), (5, 6, 8, 9), (5, 10), (5, 10, 11, 12), (5, 13, 14, 15, 16)]
TRIE = label_trie(SET)


class Model:
    """A made-up model: what it says depends on all tokens before, and it has a favourite reply.

    Slots of its paths are the tokens themselves.
    """

    def __init__(self, seed: int, favourite: Sequence[int], strength: float) -> None:
        self.seed, self.favourite, self.strength = seed, (*favourite, STOP), strength
        self.passes = self.tokens = 0

    def row(self, tokens: Sequence[int]) -> Tensor:
        drawn = random.Random(f"{self.seed} {[int(token) for token in tokens]}")
        logits = torch.tensor([drawn.gauss(0, 1) for _ in range(VOCABULARY)])
        said = tuple(int(token) for token in tokens[len(PROMPT) :])
        if said == self.favourite[: len(said)] and len(said) < len(self.favourite):
            logits[self.favourite[len(said)]] += self.strength
        return logits.log_softmax(0)

    def grow(self, growth: Growth) -> Grown:
        path = np.concatenate([growth.parent.slots, growth.ids])
        assert growth.wanted is not None
        assert all(tokens is None for tokens in growth.wanted)
        ends = range(len(path) - growth.rows + 1, len(path) + 1)
        state = None if growth.state is None else torch.ones(2)
        self.tokens += len(growth.ids)
        return Grown(Path(path), [self.row(path[:end]) for end in ends], state)

    def reply(
        self, sampling: Sampling, foresight: Foresight | None, stop_after: int = 99
    ) -> list[tuple[int, list[int], list[TokenScore | None], str]]:
        """The tokens of each reply, what is told of them, and why it ended."""
        said: dict[int, list[int]] = {index: [] for index in range(sampling.n)}
        told: dict[int, list[TokenScore | None]] = {index: [] for index in range(sampling.n)}
        ends: dict[int, str] = {}

        def on_token(index: int, token: int, score: TokenScore | None) -> bool:
            assert index not in ends
            said[index].append(token)
            told[index].append(score)
            return len(said[index]) < stop_after

        prompt = Prompt(Path(np.array(PROMPT[:2])), 2)
        request = reply_freely(
            PROMPT, prompt, sampling, frozenset({STOP}), on_token, ends.__setitem__, foresight
        )
        wants = next(request)
        while True:
            self.passes += 1
            try:
                wants = request.send([self.grow(growth) for growth in wants])
            except StopIteration:
                break
        return [(index, said[index], told[index], ends[index]) for index in range(sampling.n)]


def weighing(favourite: Sequence[int]) -> Foresight:
    """Foresight of a model whose examples are for one reply."""
    ends = {}
    for label in SET:
        state = TRIE.start
        for token in label:
            state = TRIE.advance(state, token)
        ends[state] = 100.0 if label == favourite else 1.0
    return Foresight(TRIE, lambda state: NeighbourWeights(TRIE, ends))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 9])
def test_replies_are_the_same_with_foresight(temperature: float, max_tokens: int) -> None:
    seeds = range(40)
    lengths = set()
    for seed in seeds:
        favourite = SET[seed % len(SET)]
        sampling = Sampling(
            n=1 + seed % 3,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=0.9 if seed % 2 else 1.0,
            seed=seed,
            shapes=shapes_of({6: 1.5}, 0.5, 0.3) if seed % 4 == 3 else (),
            top=2 if seed % 5 == 0 else None,
        )
        stop_after = 3 if seed % 7 == 6 else 99
        plain = Model(seed, favourite, strength=4.0).reply(sampling, None, stop_after)
        for foresight in (Foresight(TRIE), weighing(favourite), weighing(SET[0])):
            found = Model(seed, favourite, strength=4.0).reply(sampling, foresight, stop_after)
            assert found == plain
        lengths |= {len(said) for _, said, _, _ in plain}
    if temperature:
        assert len(lengths) >= min(max_tokens, 2), "replies end at several places"


def test_what_is_foreseen_needs_no_pass_of_its_own() -> None:
    sampling = Sampling(n=1, max_tokens=9, temperature=0.0, top_p=1.0, seed=None)
    for favourite in SET:
        passes = {}
        for name, foresight in {
            "none": None,
            "forced": Foresight(TRIE),
            "right": weighing(favourite),
        }.items():
            model = Model(1, favourite, strength=50.0)
            [(_, said, _, end)] = model.reply(sampling, foresight)
            assert (tuple(said), end) == (favourite, "stop")
            passes[name] = model.passes
        assert passes["none"] == len(favourite) + 1
        assert passes["right"] <= passes["forced"] <= passes["none"]
        longer = any(label[: len(favourite)] == favourite for label in SET if label != favourite)
        assert passes["right"] == 2 or longer or favourite == (5, 10, 11, 12)


def test_a_reply_that_leaves_the_set_is_foreseen_no_more() -> None:
    sampling = Sampling(n=1, max_tokens=9, temperature=0.0, top_p=1.0, seed=None)
    strange = (5, 20, 21, 22)
    model = Model(2, strange, strength=50.0)
    [(_, said, _, _)] = model.reply(sampling, weighing(SET[0]))
    assert tuple(said) == strange
    plain = Model(2, strange, strength=50.0)
    plain.reply(sampling, None)
    assert model.passes == plain.passes - 1, "only the beginning of all was foreseen"
    assert model.tokens == plain.tokens


class Form:
    """A guide: a token of choice, then a word that two tokens or four may spell, and again."""

    USUAL, OTHER = (6, 7), (8, 9, 10, 11)

    def __init__(self) -> None:
        self._left: list[tuple[int, ...]] = []
        self._words = 0

    def allowed(self, size: int) -> Tensor:
        allowed = torch.zeros(size, dtype=torch.bool)
        allowed[[word[0] for word in self._left] or [12, 13, 14]] = True
        return allowed

    def advance(self, token: int) -> bool:
        if not self._left:
            self._left = [self.USUAL, self.OTHER]
            return True
        self._left = [word[1:] for word in self._left if word[0] == token]
        if self._left == [()]:
            self._left, self._words = [], self._words + 1
        return self._words < 3

    def forced(self) -> tuple[int, ...]:
        return self._left[0] if self._left else ()


class Unforeseen(Form):
    def forced(self) -> tuple[int, ...]:
        return ()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_a_guide_leaves_no_choice_of_is_foreseen(temperature: float) -> None:
    spelled: set[int] = set()
    fewer = 0
    for seed in range(40):
        sampling = Sampling(
            n=2, max_tokens=30, temperature=temperature, top_p=1.0, seed=seed, guide=Form
        )
        model, plain = Model(seed, (), 0.0), Model(seed, (), 0.0)
        found = model.reply(sampling, None)
        assert found == plain.reply(replace(sampling, guide=Unforeseen), None)
        spelled |= {token for _, said, _, _ in found for token in said}
        fewer += model.passes < plain.passes
    assert spelled >= {*Form.USUAL, *Form.OTHER}, "words were spelled both ways"
    assert fewer > 20


def test_a_reply_that_does_otherwise_again_and_again_is_foreseen_no_more() -> None:
    class Wrong(Form):
        """Foresees what never comes."""

        def allowed(self, size: int) -> Tensor:
            return torch.arange(size) == 12

        def advance(self, token: int) -> bool:
            return True

        def forced(self) -> tuple[int, ...]:
            return (6,) * 50

    sampling = Sampling(n=1, max_tokens=90, temperature=0.0, top_p=1.0, seed=None, guide=Wrong)
    model = Model(3, (), 0.0)
    [(_, said, _, end)] = model.reply(sampling, None)
    assert (said, end) == ([12] * 90, "length")
    assert 64 <= model.tokens - 90 <= MOST_DROPPED
