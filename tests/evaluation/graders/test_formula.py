import pytest

from emojitune.errors import InvalidRequestError
from emojitune.evaluation.graders.formula import parse_formula

SCORES = {"a": 0.5, "b": 0.25}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 0.5),
        (" 0.5 * a + 2*b ", 0.75),
        ("-(a - b) / 2", -0.125),
        ("2 * a ^ 2", 0.5),
        ("a ** 2 ** 3", 0.5**8),
        ("max(a, b, 0.1) - min(a, b)", 0.25),
        ("floor(a) + ceil(b) + abs(-1)", 2),
        ("sqrt(b) + exp(0) + log(1)", 1.5),
        ("max(a)", 0.5),
        ("1e3", 1000),
        ("-" * 498 + "a", 0.5),
    ],
)  # fmt: skip
def test_formulas_are_worked_out(text: str, value: float) -> None:
    assert parse_formula(text, SCORES).value(SCORES) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a +",
        "a; b",
        "c",
        "a.real",
        "a[0]",
        "'a'",
        "True",
        "1j",
        "a if b else 1",
        "a < b",
        "a // b",
        "lambda: 1",
        "__import__('os')",
        "max()",
        "sqrt(a, b)",
        "min(*a)",
        "max(a, key=b)",
        "(x := 1)",
        "9" * 400,
        "(" * 240 + "a" + ")" * 240,
        "a\x00",
        "a" * 501,
    ],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_formula(text, SCORES).value(SCORES)
    assert caught.value.param == "grader.calculate_output"


@pytest.mark.parametrize("text", ["1 / (a - a)", "log(-1)", "9^9^9^9", "exp(9999)", "(-1)^a"])
def test_some_formulas_have_no_value(text: str) -> None:
    formula = parse_formula(text, SCORES)
    with pytest.raises((ArithmeticError, ValueError)):
        formula.value(SCORES)
