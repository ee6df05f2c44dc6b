"""Arithmetic over named scores: `0.5 * style + 0.5 * max(exact, close)`. Parsed, never executed.

Numbers, names, + - * / ^ ** and brackets, and min, max, abs, floor, ceil, exp, sqrt, log.
"""

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from emojitune.errors import InvalidRequestError

_MAX_CHARACTERS = 500  # bounds the depth of nesting, too

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[float], float]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_VARIADIC = ("min", "max")


@dataclass(frozen=True, slots=True)
class Formula:
    """A parsed formula."""

    text: str
    _tree: ast.expr

    def value(self, scores: Mapping[str, float]) -> float:
        """Evaluate the formula; the value may be infinite or NaN.

        Raises:
            ArithmeticError, ValueError: It has no value, such as 1 / 0 and log(-1).
        """
        return float(_value(self._tree, scores))


def parse_formula(text: str, names: Collection[str]) -> Formula:
    """Parse a formula over `names`.

    Raises:
        InvalidRequestError: `text` is not a formula.
    """
    if len(text) > _MAX_CHARACTERS:
        raise _refused(f"it has {len(text)} characters, and may have {_MAX_CHARACTERS}")
    try:
        # ^ is a power in formulas, though not in Python.
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
        _check(tree, names)
    except SyntaxError as error:
        raise _refused(f"{error.msg} (in {text[:80]!r})") from None
    except (ValueError, OverflowError, RecursionError, MemoryError):
        raise _refused("it cannot be parsed") from None
    return Formula(text, tree)


def _check(node: ast.expr, names: Collection[str]) -> None:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            float(value)  # OverflowError where the integer is too large
        case ast.Name(id=name):
            if name not in names:
                available = ", ".join(sorted(names))
                raise _refused(f"no grader is called {name!r}; there are: {available}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(left, names)
            _check(right, names)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            _check(operand, names)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            if not args or (len(args) > 1 and name not in _VARIADIC):
                raise _refused(f"{name} takes {'numbers' if name in _VARIADIC else 'one number'}")
            for argument in args:
                _check(argument, names)
        case _:
            functions = ", ".join(_FUNCTIONS)
            raise _refused(f"it may hold numbers, names, + - * / ^, brackets and {functions} only")


def _value(node: ast.expr, scores: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.Name(id=name):
            return scores[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, scores), _value(right, scores))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, scores))
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_value(argument, scores) for argument in args]
            return (
                max(values)
                if name == "max"
                else min(values)
                if name == "min"
                else (_FUNCTIONS[name](*values))
            )
    raise AssertionError("the formula was checked when it was parsed")


def _refused(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        "Invalid 'grader.calculate_output': a formula over the graders' names is needed: "
        f"{reason}.",
        code="invalid_value",
        param="grader.calculate_output",
    )
