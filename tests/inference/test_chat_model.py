import math
from dataclasses import replace
from pathlib import Path

import pytest
from gathered import LABELS, USER, ask, request_for, text
from tiny_model import chat_tiny, make_adapter

from emojitune.dataset.example import Message
from emojitune.inference import chat_model
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.types import Alternative


@pytest.fixture
def open_model(tiny_base: Path) -> ChatModel:
    return chat_tiny(tiny_base)


@pytest.fixture
def closed_model(tiny_base: Path, tmp_path: Path) -> ChatModel:
    """A model whose adapter, which changes nothing, brings a closed vocabulary."""
    return chat_tiny(tiny_base, make_adapter(tiny_base, tmp_path / "adapter", None, LABELS))


def test_a_closed_model_replies_with_a_label(closed_model: ChatModel) -> None:
    [deltas], usage = ask(closed_model, request_for(temperature=0.0))
    assert text(deltas) in LABELS
    assert deltas[-1].finish_reason == "stop"
    assert usage.completion_tokens == len(closed_model._renderer.encode_text(text(deltas)))
    assert usage.prompt_tokens == len(closed_model._renderer.render_prompt([USER]))


def test_a_sampled_label_is_one_of_the_set(closed_model: ChatModel) -> None:
    replies, _ = ask(closed_model, request_for(temperature=1.5, n=20, seed=3))
    labels = {text(deltas) for deltas in replies}
    assert labels <= set(LABELS)
    assert len(labels) > 1
    again, _ = ask(closed_model, request_for(temperature=1.5, n=20, seed=3))
    assert [text(d) for d in again] == [text(d) for d in replies]


def test_alternatives_come_best_first_and_begin_with_the_reply(closed_model: ChatModel) -> None:
    [deltas], _ = ask(closed_model, request_for(temperature=0.0, alternatives=3))
    alternatives = deltas[-1].alternatives
    assert alternatives[0].content == text(deltas)
    assert len({a.content for a in alternatives}) == 3
    scores = [a.logprob for a in alternatives]
    assert scores == sorted(scores, reverse=True)


def test_probabilities_are_left_out_unless_requested(closed_model: ChatModel) -> None:
    request = request_for(temperature=0.0, alternatives=3)
    [deltas], _ = ask(closed_model, request)
    [plain], _ = ask(closed_model, replace(request, probabilities=False))
    assert [one.content for one in plain[-1].alternatives] == [
        one.content for one in deltas[-1].alternatives
    ]
    assert {one.probability for one in plain[-1].alternatives} == {None}
    assert all(one.probability for one in deltas[-1].alternatives)


def test_probabilities_are_shares_of_the_entire_vocabulary(closed_model: ChatModel) -> None:
    def ranked(count: int) -> dict[str, Alternative]:
        [deltas], _ = ask(closed_model, request_for(temperature=0.0, alternatives=count))
        return {one.content: one for one in deltas[-1].alternatives}

    everything = ranked(len(LABELS) + 1)
    assert set(everything) == set(LABELS)
    assert sum(one.probability for one in everything.values()) == pytest.approx(1.0)
    total = sum(math.exp(one.logprob) for one in everything.values())
    for one in everything.values():
        assert one.probability == pytest.approx(math.exp(one.logprob) / total)
    [best] = ranked(1).values()
    assert best.probability == pytest.approx(everything[best.content].probability, rel=0.011)


def test_labels_of_the_request_constrain_any_model(open_model: ChatModel) -> None:
    [deltas], _ = ask(open_model, request_for(temperature=0.0, labels=("yes", "no")))
    assert text(deltas) in ("yes", "no")


def test_free_decoding_ends_at_max_tokens(closed_model: ChatModel) -> None:
    [deltas], usage = ask(closed_model, request_for(temperature=0.0, decoding="free", max_tokens=3))
    assert deltas[-1].finish_reason == "length"
    assert usage.completion_tokens == 3


def test_a_repeated_prompt_is_cached(open_model: ChatModel) -> None:
    _, first = ask(open_model, request_for(max_tokens=2))
    _, second = ask(open_model, request_for(max_tokens=2))
    assert first.cached_tokens == 0
    assert second.cached_tokens == second.prompt_tokens - 1


def test_a_reply_ends_before_its_stop_sequence(open_model: ChatModel) -> None:
    parameters = request_for(temperature=0.0, max_tokens=12)
    [deltas], _ = ask(open_model, parameters)
    full_text = text(deltas)
    stop = full_text[3:5]
    [deltas], _ = ask(open_model, request_for(temperature=0.0, max_tokens=12, stop=(stop,)))
    assert text(deltas) == full_text[: full_text.index(stop)]
    assert deltas[-1].finish_reason == "stop"
    assert all(stop not in delta.text for delta in deltas)


def test_several_replies_are_sampled_separately(open_model: ChatModel) -> None:
    replies, usage = ask(open_model, request_for(n=3, seed=1, max_tokens=6))
    assert len({text(deltas) for deltas in replies}) == 3
    assert usage.completion_tokens <= 18
    alone, _ = ask(open_model, request_for(n=1, seed=1, max_tokens=6))
    assert text(alone[0]) == text(replies[0])


@pytest.mark.parametrize(
    "prompt", [[Message("user", "x" * 10_000_000)], [USER] * 300], ids=["characters", "messages"]
)
def test_a_prompt_far_too_long_is_refused_without_being_encoded(
    open_model: ChatModel, prompt: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_model._renderer, "encode_text", None)
    request = request_for(*prompt)
    for call in (
        lambda: open_model.start(request, lambda _event: None),
        lambda: open_model.count_tokens(request),
    ):
        with pytest.raises(RequestFault, match="Please reduce the length") as caught:
            call()
        assert caught.value.code == "context_length_exceeded"


def test_a_prompt_is_cached_for_its_owner_alone(open_model: ChatModel) -> None:
    def cached(owner: str) -> int:
        return ask(open_model, request_for(max_tokens=1, owner=owner))[1].cached_tokens

    assert cached("a") == 0
    assert cached("b") == 0
    assert cached("a") == cached("b") > 0


def test_many_replies_share_the_cache(
    open_model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_model, "_REPLY_TOKENS", 320)
    with pytest.raises(RequestFault, match="at most 320 tokens together") as caught:
        ask(open_model, request_for(n=64, max_tokens=6))
    assert caught.value.field == Field.MAX_TOKENS
    assert ask(open_model, request_for(n=64, max_tokens=5))[1].completion_tokens <= 320
    assert ask(open_model, request_for(n=64))[1].completion_tokens <= 320


def test_a_prompt_beyond_the_context_is_refused(open_model: ChatModel) -> None:
    with pytest.raises(RequestFault, match="maximum context length is 256") as caught:
        ask(open_model, request_for(max_tokens=1000))
    assert caught.value.code == "context_length_exceeded"


def test_messages_that_the_template_refuses_are_at_fault(open_model: ChatModel) -> None:
    template = "{{ raise_exception('Roles must alternate.') }}"
    open_model.runtime.renderer.tokenizer.chat_template = template
    with pytest.raises(RequestFault, match="Roles must alternate") as caught:
        ask(open_model, request_for(USER, USER))
    assert (caught.value.field, caught.value.code) == (Field.MESSAGES, "invalid_value")


def test_labels_need_a_vocabulary(open_model: ChatModel) -> None:
    with pytest.raises(RequestFault, match="closed vocabulary"):
        ask(open_model, request_for(decoding="labels"))
    with pytest.raises(RequestFault, match="alternatives"):
        ask(open_model, request_for(alternatives=2))


def test_a_bias_acts_on_entire_labels(closed_model: ChatModel) -> None:
    encode = closed_model._renderer.encode_text
    for label in ("(devil)", "(dog)", "(party)"):
        others = {token for other in LABELS if other != label for token in encode(other)}
        [distinct, *_] = [token for token in encode(label) if token not in others]
        [deltas], _ = ask(closed_model, request_for(temperature=0.0, logit_bias={distinct: 100.0}))
        assert text(deltas) == label
        banned = request_for(temperature=1.0, n=20, seed=1, logit_bias={distinct: -100.0})
        replies, _ = ask(closed_model, banned)
        assert label not in {text(deltas) for deltas in replies}


def test_a_penalty_acts_on_labels_that_repeat_a_token(open_model: ChatModel) -> None:
    labels = ("aaaaaa", "qwerty")
    plain = request_for(temperature=0.0, labels=labels, alternatives=2)
    [deltas], _ = ask(open_model, plain)
    lead = {a.content: a.logprob for a in deltas[-1].alternatives}
    assert len(open_model._renderer.encode_text("aaaaaa")) == 6
    penalty = 2.0 if lead["aaaaaa"] > lead["qwerty"] else -2.0
    # Five repetitions cost 1 + 2 + 3 + 4 + 5 penalties, more than the lead.
    assert abs(lead["aaaaaa"] - lead["qwerty"]) < 30
    penalized = request_for(temperature=0.0, labels=labels, frequency_penalty=penalty)
    [again], _ = ask(open_model, penalized)
    assert text(again) != text(deltas)


def test_log_probabilities_of_a_label_are_those_of_the_model(closed_model: ChatModel) -> None:
    parameters = request_for(temperature=0.0, top_logprobs=2, alternatives=1)
    [deltas], usage = ask(closed_model, parameters)
    logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
    assert len(logprobs) == usage.completion_tokens
    # No label begins with another here, so that no end is a choice and part of the joint.
    joint = deltas[-1].alternatives[0].logprob
    assert sum(logprob.logprob for logprob in logprobs) == pytest.approx(joint, abs=1e-3)
