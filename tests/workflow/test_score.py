"""The requests that scoring sends to a server, and how it reads the responses."""

import math
from collections.abc import Iterator

import pytest
from fake_api import MODEL, FakeApi
from openai import OpenAI

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import ProviderError
from emojitune.evaluation.protocol import CONSTRAINED, FREE, SAMPLING_SEED
from emojitune.workflow.score import Candidate, completer, label_candidates, score, supported

PROMPT = (Message("system", "s"), Message("user", "hi"))
EXAMPLES = [TrainingExample((*PROMPT, Message("assistant", reply))) for reply in ("(party)", "(x)")]


@pytest.fixture
def client(fake_api: FakeApi) -> Iterator[OpenAI]:
    with OpenAI(base_url=fake_api.url, api_key="k", max_retries=0) as client:
        yield client


def test_constrained_decoding_requests_alternatives(client: OpenAI, fake_api: FakeApi) -> None:
    complete = completer(client, Candidate("base", CONSTRAINED, ("(a)", "(b)")), is_emojitune=True)
    reply = complete(PROMPT)
    assert (reply.text, reply.alternatives) == ("(party)", ("(party)", "(wave)"))
    assert reply.confidence == 0.5
    assert reply.seconds is not None
    assert reply.seconds > 0
    (request,) = fake_api.chats
    assert request["decoding"] == "labels"
    assert request["labels"] == ["(a)", "(b)"]
    assert (request["alternatives"], request["max_tokens"], request["temperature"]) == (5, 12, 0)


def test_a_fine_tuned_model_uses_its_own_labels(client: OpenAI, fake_api: FakeApi) -> None:
    completer(client, Candidate(MODEL, CONSTRAINED), is_emojitune=True)(PROMPT)
    assert "labels" not in fake_api.chats[0]


@pytest.mark.parametrize("is_emojitune", [True, False])
def test_free_is_greedy_then_four_samples(
    client: OpenAI, fake_api: FakeApi, is_emojitune: bool
) -> None:
    fake_api.reply = lambda request: "(greedy)" if request["temperature"] == 0 else "(sampled)"
    reply = completer(client, Candidate(MODEL, FREE), is_emojitune=is_emojitune)(PROMPT)
    assert reply.text == "(greedy)"
    assert reply.alternatives == ("(greedy)", *["(sampled)"] * 4)
    assert reply.confidence == pytest.approx(math.exp(-1.0))
    greedy, sampled = fake_api.chats
    assert (sampled["n"], sampled["temperature"], sampled["seed"]) == (4, 1, SAMPLING_SEED)
    assert (greedy.get("decoding") == "free") is is_emojitune


def test_score_makes_a_row_for_each_candidate(client: OpenAI, fake_api: FakeApi) -> None:
    calls: list[tuple[str, int]] = []
    rows = label_candidates(MODEL, base="base", vocabulary=("(party)", "(x)"))
    table = score(
        client,
        rows,
        EXAMPLES,
        ("(party)", "(x)"),
        is_emojitune=True,
        progress=lambda row, done, of: calls.append((row.decoding, done)),
    )
    assert [(row.model, row.decoding) for row in table] == [
        ("base", FREE),
        ("base", CONSTRAINED),
        (MODEL, FREE),
        (MODEL, CONSTRAINED),
    ]
    assert {row.estimates["top_1"].value for row in table} == {0.5}
    assert calls == [(FREE, 1), (FREE, 2), (CONSTRAINED, 1), (CONSTRAINED, 2)] * 2
    # One request more than there are examples, to warm up; two requests per free reply.
    assert len(fake_api.chats) == 2 * (3 * 2 + 3)


def test_without_logprobs_the_confidence_is_unknown(client: OpenAI, fake_api: FakeApi) -> None:
    chat = fake_api.chat
    fake_api.chat = lambda request: chat({**request, "logprobs": False})  # type: ignore[method-assign]
    reply = completer(client, Candidate(MODEL, FREE), is_emojitune=False)(PROMPT)
    assert (reply.text, reply.confidence) == ("(party)", None)


def test_constrained_needs_emojitune(client: OpenAI, fake_api: FakeApi) -> None:
    fake_api.chat = lambda request: {  # type: ignore[method-assign]
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x"}}
        ],
    }
    with pytest.raises(ProviderError, match="sent no alternatives"):
        completer(client, Candidate(MODEL, CONSTRAINED), is_emojitune=True)(PROMPT)


def test_other_apis_score_the_fine_tuned_model_with_free_decoding_only() -> None:
    candidates = label_candidates(MODEL, base="base", vocabulary=("(party)", "(x)"))
    assert supported(candidates, is_emojitune=True) == candidates
    assert supported(candidates, is_emojitune=False) == (Candidate(MODEL, FREE),)
