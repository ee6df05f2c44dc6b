"""Graders: a reply and the item it answers -> a reward, as OpenAI's reinforcement method has them.

Pure: those that would call a model or run a program are not here. Templates such as
`{{sample.output_text}}`, `{{sample.output_json.label}}` and `{{item.labels[0].name}}` are filled in
from the reply and the item.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emojitune.errors import InvalidRequestError
from emojitune.evaluation.graders.formula import Formula
from emojitune.evaluation.graders.similarity import MEASURES

NAMESPACES = ("sample", "item")
LONGEST_TEXT = 100_000  # characters of a filled-in template; what is behind them is not graded

_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_STEP = re.compile(r"[^.\[\]\s]+")

_OPERATIONS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.lower() in text.lower(),
}


@dataclass(frozen=True, slots=True)
class StringCheck:
    """1 when a comparison of two texts holds, else 0."""

    name: str
    input: str
    reference: str
    operation: str


@dataclass(frozen=True, slots=True)
class TextSimilarity:
    """How alike two texts are."""

    name: str
    input: str
    reference: str
    metric: str


@dataclass(frozen=True, slots=True)
class Multi:
    """A formula over other graders, by the name that each has in it."""

    name: str
    graders: Mapping[str, StringCheck | TextSimilarity]
    formula: Formula


Grader = StringCheck | TextSimilarity | Multi


@dataclass(frozen=True, slots=True)
class Grade:
    """A reward, the parts it is made of, and the names of what went wrong (it is then 0)."""

    reward: float
    parts: dict[str, float] = field(default_factory=dict)
    errors: frozenset[str] = frozenset()


class _TemplateError(Exception):
    """A template asks for what is not there; `kind` is OpenAI's name for that."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def grade(grader: Grader, sample: str, item: Mapping[str, Any]) -> Grade:
    """The grade of the reply `sample` to `item`."""
    if isinstance(grader, Multi):
        return _grade_multi(grader, sample, item)
    try:
        text, cut = _fill(grader.input, sample, item)
        reference, reference_cut = _fill(grader.reference, sample, item)
    except _TemplateError as error:
        return Grade(0.0, errors=frozenset({error.kind}))
    errors = {"truncated_observation_error"} if cut or reference_cut else set()
    return Grade(_score(grader, text, reference), errors=frozenset(errors))


def check_templates(text: str, param: str) -> None:
    """Refuse templates of which no reply and no item could fill in anything.

    Raises:
        InvalidRequestError: One names neither the sample nor the item.
    """
    for path in _TEMPLATE.findall(text):
        steps = _STEP.findall(path)
        if len(steps) < 2 or steps[0] not in NAMESPACES:
            found = path.strip()[:80]
            raise InvalidRequestError(
                f"Invalid '{param}': a template is {{{{sample.output_text}}}}, "
                f"{{{{sample.output_json.KEY}}}} or {{{{item.KEY}}}}, not {{{{{found}}}}}.",
                code="invalid_value",
                param=param,
            )


def _grade_multi(grader: Multi, sample: str, item: Mapping[str, Any]) -> Grade:
    grades = {name: grade(part, sample, item) for name, part in grader.graders.items()}
    parts = {name: part.reward for name, part in grades.items()}
    errors = frozenset[str]().union(*(part.errors for part in grades.values()))
    try:
        reward = grader.formula.value(parts)
    except (ArithmeticError, ValueError):
        reward = math.nan
    if not math.isfinite(reward):
        return Grade(0.0, parts, errors | {"other_error"})
    return Grade(reward, parts, errors)


def _score(grader: StringCheck | TextSimilarity, text: str, reference: str) -> float:
    if isinstance(grader, StringCheck):
        return float(_OPERATIONS[grader.operation](text, reference))
    return MEASURES[grader.metric](text, reference)


def _fill(template: str, sample: str, item: Mapping[str, Any]) -> tuple[str, bool]:
    """The text of a template, and whether it had to be cut."""
    pieces: list[str] = []
    end = size = 0
    for match in _TEMPLATE.finditer(template):
        pieces += [template[end : match.start()], _look_up(match[1], sample, item)]
        size += len(pieces[-2]) + len(pieces[-1])
        end = match.end()
        if size > LONGEST_TEXT:
            break
    else:
        pieces.append(template[end:])
    text = "".join(pieces)
    return text[:LONGEST_TEXT], len(text) > LONGEST_TEXT


def _look_up(path: str, sample: str, item: Mapping[str, Any]) -> str:
    namespace, *steps = _STEP.findall(path)
    value: Any = item if namespace == "item" else _sample_value(steps.pop(0), sample)
    for step in steps:
        value = _member(value, step)
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):  # nested too deeply, or a number of thousands of digits
        raise _TemplateError("invalid_variable_error") from None


def _sample_value(name: str, sample: str) -> Any:
    if name == "output_text":
        return sample
    if name != "output_json":
        raise _TemplateError("invalid_variable_error")
    try:
        return json.loads(sample)
    except (ValueError, RecursionError):
        raise _TemplateError("sample_parse_error") from None


def _member(value: Any, step: str) -> Any:
    if isinstance(value, Mapping) and step in value:
        return value[step]
    if isinstance(value, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(value):
        return value[int(step)]
    raise _TemplateError("invalid_variable_error")
