"""The protocol: which requests measure free and constrained decoding, over any callable."""

import math
from collections.abc import Sequence

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation import protocol
from emojitune.evaluation.protocol import ReplyRequest, ReplyResponse

HELLO = (Message("user", "hello"),)


class Model:
    """Records the requests that it gets."""

    def __init__(self, logprob: float | None = -1.0) -> None:
        self.requests: list[ReplyRequest] = []
        self.logprob = logprob

    def __call__(self, messages: Sequence[Message], request: ReplyRequest) -> ReplyResponse:
        assert messages == HELLO
        self.requests.append(request)
        best = (("(wave)", 0.75), ("(party)", None))[: request.alternatives]
        text = "(greedy)" if request.temperature == 0 else "(sampled)"
        return ReplyResponse((text,) * request.n, self.logprob, best)


def test_free_decoding_is_a_greedy_reply_and_four_seeded_samples() -> None:
    model = Model()
    reply = protocol.free(model)(HELLO)
    assert (reply.text, reply.alternatives) == ("(greedy)", ("(greedy)", *["(sampled)"] * 4))
    assert reply.confidence == pytest.approx(math.exp(-1))
    assert reply.seconds is not None
    greedy, sampled = model.requests
    assert greedy == ReplyRequest("free", max_tokens=12, temperature=0, logprobs=True)
    assert sampled == ReplyRequest("free", temperature=1, n=4, seed=protocol.SAMPLING_SEED)


def test_text_gets_a_longer_reply_and_no_samples() -> None:
    model = Model()
    reply = protocol.free(model, text_tokens=90)(HELLO)
    assert reply.alternatives == ("(greedy)",)
    assert model.requests == [ReplyRequest("free", max_tokens=90, logprobs=True)]


@pytest.mark.parametrize(("logprob", "confidence"), [(None, None), (1e-6, 1.0)])
def test_a_confidence_is_a_probability_or_unknown(
    logprob: float | None, confidence: float | None
) -> None:
    assert protocol.free(Model(logprob))(HELLO).confidence == confidence


@pytest.mark.parametrize("calibrated", [True, False])
def test_constrained_decoding_is_one_request_for_five_labels(calibrated: bool) -> None:
    model = Model()
    reply = protocol.constrained(model, labels=("(wave)",), calibrated=calibrated)(HELLO)
    assert (reply.text, reply.alternatives) == ("(greedy)", ("(wave)", "(party)"))
    assert reply.confidence == 0.75
    assert model.requests == [
        ReplyRequest("labels", labels=("(wave)",), alternatives=5, probabilities=calibrated)
    ]


def test_warming_up_completes_the_first_prompt_only() -> None:
    model = Model()
    example = TrainingExample((*HELLO, Message("assistant", "(wave)")))
    protocol.warm_up(protocol.constrained(model), [example, example])
    protocol.warm_up(protocol.constrained(model), [])
    assert len(model.requests) == 1


def test_the_token_limit_of_text_exceeds_every_expected_reply() -> None:
    assert protocol.text_token_limit(labelled("short", "é" * 50)) == 12 + 50


def labelled(*replies: str) -> list[TrainingExample]:
    return [TrainingExample((*HELLO, Message("assistant", reply))) for reply in replies]


def test_the_scoring_vocabulary_is_the_shipped_one_or_the_files_own() -> None:
    assert len(protocol.scoring_vocabulary(labelled("(party)", "(devil)"))) == 349
    own = labelled(*["refund", "invoice"] * 6)
    assert protocol.scoring_vocabulary(own) == ("invoice", "refund")
    text = labelled(*(f"It depends on {number}." for number in range(12)))
    assert protocol.scoring_vocabulary(text) == ()
