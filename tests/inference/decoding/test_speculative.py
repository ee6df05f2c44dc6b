"""Free replies with drafts are equal to those without, in fewer passes."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from decoder_loop import run_decoder
from torch import Tensor

from emojitune.inference.decoding.constraint import Guide, LabelTrie
from emojitune.inference.decoding.knn import KNNScorer
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.sampling import TopLogprobs
from emojitune.inference.decoding.speculative import MAX_REJECTED, DraftProposer, reply_freely
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, Path, Prompt

VOCABULARY, STOP = 24, 23
PROCESSED = {"logit_bias": {6: 1.5}, "frequency_penalty": 0.5, "presence_penalty": 0.3}
PROMPT = (1, 2, 3)
# Some share a prefix, one is a prefix of another, one parts from no other at its end.
SET = [(5, 6, 7), (5, 6, 8, 9), (5, 10), (5, 10, 11, 12), (5, 13, 14, 15, 16)]
TRIE = LabelTrie(SET)


class FakeModel:
    """A model whose probabilities depend on all earlier tokens, with a favourite reply.

    Slots of its paths are the tokens themselves.
    """

    def __init__(self, seed: int, favourite: Sequence[int], strength: float) -> None:
        self.seed, self.favourite, self.strength = seed, (*favourite, STOP), strength
        self.passes = self.tokens = 0

    def row(self, tokens: Sequence[int]) -> Tensor:
        random_logits = random.Random(f"{self.seed} {[int(token) for token in tokens]}")
        logits = torch.tensor([random_logits.gauss(0, 1) for _ in range(VOCABULARY)])
        reply = tuple(int(token) for token in tokens[len(PROMPT) :])
        if reply == self.favourite[: len(reply)] and len(reply) < len(self.favourite):
            logits[self.favourite[len(reply)]] += self.strength
        return logits.log_softmax(0)

    def forward(self, requests: list[ForwardRequest]) -> list[ForwardResult]:
        self.passes += 1
        return [self._result(request) for request in requests]

    def _result(self, request: ForwardRequest) -> ForwardResult:
        path = np.concatenate([request.parent.slots, request.ids])
        assert request.logprob_tokens is not None
        assert all(tokens is None for tokens in request.logprob_tokens)
        ends = range(len(path) - request.logprob_rows + 1, len(path) + 1)
        state = None if request.hidden_at is None else torch.ones(2)
        self.tokens += len(request.ids)
        return ForwardResult(Path(path), [self.row(path[:end]) for end in ends], state)

    def reply(
        self,
        params: SamplingParams,
        proposer: DraftProposer | None = None,
        stop_after: int = 99,
        make_guide: Callable[[], Guide] | None = None,
    ) -> list[tuple[int, list[int], list[TopLogprobs | None], str]]:
        """The tokens of each reply, the log-probabilities reported with them, and its end."""
        sink = Replies(params.n, stop_after)
        decoder = reply_freely(
            Prompt(PROMPT, Path(np.array(PROMPT[:2]))),
            params,
            frozenset({STOP}),
            sink,
            make_guide=make_guide,
            proposer=proposer,
        )
        run_decoder(decoder, self.forward)
        return [
            (index, sink.tokens[index], sink.logprobs[index], sink.ends[index])
            for index in range(params.n)
        ]


class Replies:
    """A sink that stops each reply after some tokens."""

    def __init__(self, count: int, stop_after: int) -> None:
        self.tokens: dict[int, list[int]] = {index: [] for index in range(count)}
        self.logprobs: dict[int, list[TopLogprobs | None]] = {index: [] for index in range(count)}
        self.ends: dict[int, str] = {}
        self._stop_after = stop_after

    def token(self, index: int, token: int, logprobs: TopLogprobs | None) -> bool:
        assert index not in self.ends
        self.tokens[index].append(token)
        self.logprobs[index].append(logprobs)
        return len(self.tokens[index]) < self._stop_after

    def end(self, index: int, reason: str) -> None:
        self.ends[index] = reason

    def rank(self, ranking: object, log_total: object) -> None:
        raise AssertionError("free replies are not ranked")


def favouring(favourite: Sequence[int]) -> DraftProposer:
    """Drafts of a model whose examples have one reply."""
    ends = {}
    for label in SET:
        state = TRIE.start
        for token in label:
            state = TRIE.advance(state, token)
        ends[state] = 100.0 if label == favourite else 1.0
    return DraftProposer(TRIE, lambda state: KNNScorer(TRIE, ends))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 9])
def test_replies_are_equal_with_drafts(temperature: float, max_tokens: int) -> None:
    seeds = range(40)
    lengths = set()
    for seed in seeds:
        favourite = SET[seed % len(SET)]
        params = SamplingParams(
            n=1 + seed % 3,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=0.9 if seed % 2 else 1.0,
            seed=seed,
            top_logprobs=2 if seed % 5 == 0 else None,
            **PROCESSED if seed % 4 == 3 else {},
        )
        stop_after = 3 if seed % 7 == 6 else 99
        plain = FakeModel(seed, favourite, strength=4.0).reply(params, None, stop_after)
        for proposer in (DraftProposer(TRIE), favouring(favourite), favouring(SET[0])):
            found = FakeModel(seed, favourite, strength=4.0).reply(params, proposer, stop_after)
            assert found == plain
        lengths |= {len(tokens) for _, tokens, _, _ in plain}
    if temperature:
        assert len(lengths) >= min(max_tokens, 2), "replies end at different places"


def test_accepted_drafts_need_no_pass_of_their_own() -> None:
    params = SamplingParams(n=1, max_tokens=9, temperature=0.0, top_p=1.0, seed=None)
    for favourite in SET:
        passes = {}
        for name, proposer in {
            "none": None,
            "forced": DraftProposer(TRIE),
            "right": favouring(favourite),
        }.items():
            model = FakeModel(1, favourite, strength=50.0)
            [(_, tokens, _, end)] = model.reply(params, proposer)
            assert (tuple(tokens), end) == (favourite, "stop")
            passes[name] = model.passes
        assert passes["none"] == len(favourite) + 1
        assert passes["right"] <= passes["forced"] <= passes["none"]
        longer = any(label[: len(favourite)] == favourite for label in SET if label != favourite)
        assert passes["right"] == 2 or longer or favourite == (5, 10, 11, 12)


def test_a_reply_that_leaves_the_set_is_no_longer_drafted() -> None:
    params = SamplingParams(n=1, max_tokens=9, temperature=0.0, top_p=1.0, seed=None)
    strange = (5, 20, 21, 22)
    model = FakeModel(2, strange, strength=50.0)
    [(_, tokens, _, _)] = model.reply(params, favouring(SET[0]))
    assert tuple(tokens) == strange
    plain = FakeModel(2, strange, strength=50.0)
    plain.reply(params)
    assert model.passes == plain.passes - 1, "only the prefix of all labels was drafted"
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


class NothingForced(Form):
    def forced(self) -> tuple[int, ...]:
        return ()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_forced_tokens_of_a_guide_are_drafted(temperature: float) -> None:
    spelled: set[int] = set()
    fewer = 0
    for seed in range(40):
        params = SamplingParams(n=2, max_tokens=30, temperature=temperature, top_p=1.0, seed=seed)
        model, plain = FakeModel(seed, (), 0.0), FakeModel(seed, (), 0.0)
        found = model.reply(params, make_guide=Form)
        assert found == plain.reply(params, make_guide=NothingForced)
        spelled |= {token for _, tokens, _, _ in found for token in tokens}
        fewer += model.passes < plain.passes
    assert spelled >= {*Form.USUAL, *Form.OTHER}, "words were spelled both ways"
    assert fewer > 20


def test_a_reply_that_rejects_many_drafts_is_no_longer_drafted() -> None:
    class Wrong(Form):
        """A guide whose forced tokens are never sampled."""

        def allowed(self, size: int) -> Tensor:
            return torch.arange(size) == 12

        def advance(self, token: int) -> bool:
            return True

        def forced(self) -> tuple[int, ...]:
            return (6,) * 50

    params = SamplingParams(n=1, max_tokens=90, temperature=0.0, top_p=1.0, seed=None)
    model = FakeModel(3, (), 0.0)
    [(_, tokens, _, end)] = model.reply(params, make_guide=Wrong)
    assert (tokens, end) == ([12] * 90, "length")
    assert 64 <= model.tokens - 90 <= MAX_REJECTED
