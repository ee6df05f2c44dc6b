from dataclasses import dataclass

import pytest

from emojitune.inference.engine.slices import SlicedComputation, Slices, compute, take_turns


@dataclass(frozen=True)
class Item:
    owner: str
    number: int


def test_owners_take_turns_and_each_keeps_its_order() -> None:
    items = [Item("a", 1), Item("a", 2), Item("a", 3), Item("b", 1), Item("c", 1), Item("b", 2)]
    turns = [(item.owner, item.number) for item in take_turns(items)]
    assert turns == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("b", 2), ("a", 3)]


def three_slices(steps: list[int]) -> Slices[str]:
    for step in range(2):
        steps.append(step)
        yield
    steps.append(2)
    return "result"


def test_all_slices_at_once() -> None:
    steps: list[int] = []
    assert compute(three_slices(steps)) == "result"
    assert steps == [0, 1, 2]


def test_slice_after_slice() -> None:
    steps: list[int] = []
    results: list[str] = []
    computation = SlicedComputation(
        three_slices(steps),
        "a",
        on_result=results.append,
        on_error=pytest.fail,
        cancelled=lambda: False,
    )
    assert computation.advance()
    assert steps == [0]
    assert computation.advance()
    assert not computation.advance()
    assert results == ["result"]


def test_an_error_ends_a_computation() -> None:
    def failing() -> Slices[None]:
        yield
        raise ValueError("no")

    errors: list[Exception] = []
    computation = SlicedComputation(
        failing(), "a", on_result=pytest.fail, on_error=errors.append, cancelled=lambda: False
    )
    assert computation.advance()
    assert not computation.advance()
    assert [str(error) for error in errors] == ["no"]


def test_a_cancelled_computation_gives_up_what_it_holds() -> None:
    released: list[str] = []

    def holding() -> Slices[None]:
        try:
            yield
        finally:
            released.append("slots")

    cancellations = iter([False, True])
    computation = SlicedComputation(
        holding(),
        "a",
        on_result=pytest.fail,
        on_error=pytest.fail,
        on_cancel=lambda: released.append("caller told"),
        cancelled=lambda: next(cancellations),
    )
    computation.advance()
    assert not computation.close_if_cancelled()
    assert computation.close_if_cancelled()
    assert released == ["slots", "caller told"]
