"""evaluate: order, shares, concurrency, the first error."""

import threading
from collections.abc import Sequence

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import InvalidRequestError, ProviderError
from emojitune.evaluation.evaluate import evaluate
from emojitune.evaluation.metrics import Reply


def example(question: str, reply: str) -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


EXAMPLES = [example("a", "(a)"), example("b", "(b)"), example("c", "(c)"), example("d", "(d)")]
ANSWERS = {
    "a": Reply("(a)", ("(a)", "(b)")),
    "b": Reply("(x)", ("(x)", "(b)")),
    "c": Reply("(nosuch)", ("(nosuch)",)),
    "d": Reply("I think so.", ()),
}


def complete(messages: Sequence[Message]) -> Reply:
    return ANSWERS[messages[-1].content]


def test_shares_and_order() -> None:
    calls: list[tuple[int, int]] = []
    result = evaluate(
        complete, EXAMPLES, ("(a)", "(x)"), progress=lambda done, total: calls.append((done, total))
    )
    assert (result.mean("in_style"), result.mean("in_vocabulary")) == (0.75, 0.5)
    assert (result.mean("top_1"), result.mean("top_5")) == (0.25, 0.5)
    assert [one.hit for one in result.scored] == [True, False, False, False]
    assert [one.example for one in result.scored] == EXAMPLES
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_requests_run_concurrently() -> None:
    together = threading.Barrier(4, timeout=5)

    def wait_for_all(messages: Sequence[Message]) -> Reply:
        together.wait()
        return complete(messages)

    assert evaluate(wait_for_all, EXAMPLES, (), workers=4).mean("top_1") == 0.25


def test_the_first_error_is_raised() -> None:
    def fail(messages: Sequence[Message]) -> Reply:
        raise ProviderError("gone")

    with pytest.raises(ProviderError, match="gone"):
        evaluate(fail, EXAMPLES, ())


def test_nothing_to_evaluate() -> None:
    with pytest.raises(InvalidRequestError, match="no example"):
        evaluate(complete, [], ())
