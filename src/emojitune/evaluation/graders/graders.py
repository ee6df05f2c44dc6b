"""Graders of OpenAI's reinforcement method: a reply and the item that it answers -> a reward.

Pure functions: graders that would call a model or run a program are not here. Templates such as
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
MAX_TEXT_LENGTH = 100_000  # characters of a filled-in template; the rest is not graded

_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_KEY = re.compile(r"[^.\[\]\s]+")

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
    """The similarity of two texts, from 0 to 1."""

    name: str
    input: str
    reference: str
    metric: str


@dataclass(frozen=True, slots=True)
class Multi:
    """A formula over the rewards of other graders, by the names that it uses for them."""

    name: str
    graders: Mapping[str, StringCheck | TextSimilarity]
    formula: Formula


Grader = StringCheck | TextSimilarity | Multi


@dataclass(frozen=True, slots=True)
class Grade:
    """A reward, the sub-rewards that a formula combined, and the names of errors.

    A reward is 0 where an error left nothing to grade.
    """

    reward: float
    sub_rewards: dict[str, float] = field(default_factory=dict)
    errors: frozenset[str] = frozenset()


class _TemplateError(Exception):
    """A template names a value that does not exist; `kind` is OpenAI's name of the error."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def grade(grader: Grader, sample: str, item: Mapping[str, Any]) -> Grade:
    """Grade the reply `sample` to `item`."""
    if isinstance(grader, Multi):
        return _grade_multi(grader, sample, item)
    try:
        text, cut = _render(grader.input, sample, item)
        reference, reference_cut = _render(grader.reference, sample, item)
    except _TemplateError as error:
        return Grade(0.0, errors=frozenset({error.kind}))
    errors = {"truncated_observation_error"} if cut or reference_cut else set()
    return Grade(_score(grader, text, reference), errors=frozenset(errors))


def check_templates(text: str, param: str) -> None:
    """Refuse templates that no reply and no item could fill in.

    Raises:
        InvalidRequestError: A template names neither the sample nor the item.
    """
    for path in _TEMPLATE.findall(text):
        keys = _KEY.findall(path)
        if len(keys) < 2 or keys[0] not in NAMESPACES:
            template = path.strip()[:80]
            raise InvalidRequestError(
                f"Invalid '{param}': a template is {{{{sample.output_text}}}}, "
                f"{{{{sample.output_json.KEY}}}} or {{{{item.KEY}}}}, not {{{{{template}}}}}.",
                code="invalid_value",
                param=param,
            )


def _grade_multi(grader: Multi, sample: str, item: Mapping[str, Any]) -> Grade:
    grades = {name: grade(one, sample, item) for name, one in grader.graders.items()}
    rewards = {name: one.reward for name, one in grades.items()}
    errors = frozenset[str]().union(*(one.errors for one in grades.values()))
    try:
        reward = grader.formula.value(rewards)
    except (ArithmeticError, ValueError):
        reward = math.nan
    if not math.isfinite(reward):
        return Grade(0.0, rewards, errors | {"other_error"})
    return Grade(reward, rewards, errors)


def _score(grader: StringCheck | TextSimilarity, text: str, reference: str) -> float:
    if isinstance(grader, StringCheck):
        return float(_OPERATIONS[grader.operation](text, reference))
    return MEASURES[grader.metric](text, reference)


def _render(template: str, sample: str, item: Mapping[str, Any]) -> tuple[str, bool]:
    """Fill in a template; returns its text, and whether it had to be cut."""
    pieces: list[str] = []
    end = size = 0
    for match in _TEMPLATE.finditer(template):
        pieces += [template[end : match.start()], _resolve(match[1], sample, item)]
        size += len(pieces[-2]) + len(pieces[-1])
        end = match.end()
        if size > MAX_TEXT_LENGTH:
            break
    else:
        pieces.append(template[end:])
    text = "".join(pieces)
    return text[:MAX_TEXT_LENGTH], len(text) > MAX_TEXT_LENGTH


def _resolve(path: str, sample: str, item: Mapping[str, Any]) -> str:
    namespace, *keys = _KEY.findall(path)
    value: Any = item if namespace == "item" else _sample_value(keys.pop(0), sample)
    for key in keys:
        value = _member(value, key)
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


def _member(value: Any, key: str) -> Any:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list) and re.fullmatch("[0-9]{1,9}", key) and int(key) < len(value):
        return value[int(key)]
    raise _TemplateError("invalid_variable_error")
