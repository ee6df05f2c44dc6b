"""Calls and results in a conversation: which of them wait, and for how long."""

from emojitune.dataset.tool_order import PendingCalls


def test_a_result_answers_a_call_that_was_made() -> None:
    calls = PendingCalls()
    calls.add("a", "message 1")
    calls.add("b", "message 2")
    assert calls.answer("b")
    assert calls.answer("b"), "a second result of one call is no fault"
    assert calls.close() == {"a": "message 1"}


def test_a_result_without_its_call_is_reported() -> None:
    calls = PendingCalls()
    calls.add("a", "message 1")
    assert not calls.answer("b")
    assert not calls.answer(None)
    assert not calls.answer(["a"])
    assert calls.close() == {"a": "message 1"}


def test_calls_are_forgotten_when_their_round_ends() -> None:
    calls = PendingCalls()
    calls.add("a", "message 1")
    assert calls.answer("a")
    assert calls.close() == {}
    assert not calls.answer("a")


def test_unanswered_calls_keep_the_order_in_which_they_were_made() -> None:
    calls = PendingCalls()
    for call_id in "badc":
        calls.add(call_id)
    assert list(calls.close()) == ["b", "a", "d", "c"]
