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
from functools import cached_property
from typing import Any

from emojitune.errors import InvalidRequestError
from emojitune.evaluation.graders.formula import Formula
from emojitune.evaluation.graders.similarity import MEASURES
from emojitune.evaluation.rouge import Pause, no_pause

NAMESPACES = ("sample", "item")
MAX_TEXT_LENGTH = 100_000  # characters of a filled-in template; the rest is not graded
MAX_TOTAL_LENGTH = 200_000  # characters of all texts of a grader: two seconds, whatever they hold

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


def grade(grader: Grader, sample: str, item: Mapping[str, Any], pause: Pause = no_pause) -> Grade:
    """Grade the reply `sample` to `item`.

    Raises:
        InvalidRequestError: The filled-in texts are too long together.
    """
    simple = grader.graders if isinstance(grader, Multi) else {grader.name: grader}
    variables = _Variables(sample, item, pause)
    # One grader may have two names.
    texts = {one: _fill_in_both(one, variables) for one in dict.fromkeys(simple.values())}
    check_length(sum(map(_length, texts.values())), "filled in")
    grades = {one: _grade_texts(one, filled, pause) for one, filled in texts.items()}
    named = {name: grades[one] for name, one in simple.items()}
    return _combine(grader.formula, named) if isinstance(grader, Multi) else named[grader.name]


def check_length(characters: int, state: str) -> None:
    """Refuse texts of a grader that have too many characters together.

    Args:
        state: Whether they are templates, or filled in, in the words of the message.

    Raises:
        InvalidRequestError: They do.
    """
    if characters > MAX_TOTAL_LENGTH:
        raise InvalidRequestError(
            f"Invalid 'grader': its texts ('input' and 'reference'), {state}, may have "
            f"{MAX_TOTAL_LENGTH} characters together, and they have {characters}. Shorten them, "
            "or split the grader.",
            code="string_above_max_length",
            param="grader",
        )


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


class _Variables:
    """The values that templates name; the reply is parsed, and each value written, only once."""

    def __init__(self, sample: str, item: Mapping[str, Any], pause: Pause) -> None:
        self._sample = sample
        self._item = item
        self._pause = pause
        self._texts: dict[str, str] = {}

    def text(self, path: str) -> str:
        """The value at the path of a template, as text."""
        self._pause()
        if path not in self._texts:
            value = self._value(path)
            self._texts[path] = value if isinstance(value, str) else self._to_json(value)
        return self._texts[path]

    def _value(self, path: str) -> Any:
        namespace, *keys = _KEY.findall(path)
        value: Any = self._item if namespace == "item" else self._sample_value(keys.pop(0))
        for key in keys:
            value = _member(value, key)
        return value

    def _sample_value(self, name: str) -> Any:
        if name == "output_text":
            return self._sample
        if name != "output_json":
            raise _TemplateError("invalid_variable_error")
        return self._sample_json

    @cached_property
    def _sample_json(self) -> Any:
        try:
            return json.loads(self._sample)
        except (ValueError, RecursionError):
            raise _TemplateError("sample_parse_error") from None

    def _to_json(self, value: Any) -> str:
        """A value as JSON, up to where it will be cut."""
        pieces: list[str] = []
        size = 0
        try:
            for piece in json.JSONEncoder(ensure_ascii=False).iterencode(value):
                self._pause()
                pieces.append(piece)
                size += len(piece)
                if size > MAX_TEXT_LENGTH:
                    break
        except (
            ValueError,
            RecursionError,
        ):  # nested too deeply, or a number of thousands of digits
            raise _TemplateError("invalid_variable_error") from None
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class _Texts:
    """The filled-in texts of a grader, and whether one of them was cut."""

    text: str
    reference: str
    cut: bool


def _fill_in_both(
    grader: StringCheck | TextSimilarity, variables: _Variables
) -> _Texts | _TemplateError:
    try:
        text, cut = _fill_in(grader.input, variables)
        reference, reference_cut = _fill_in(grader.reference, variables)
    except _TemplateError as error:
        return error
    return _Texts(text, reference, cut or reference_cut)


def _length(filled: _Texts | _TemplateError) -> int:
    return len(filled.text) + len(filled.reference) if isinstance(filled, _Texts) else 0


def _grade_texts(
    grader: StringCheck | TextSimilarity, filled: _Texts | _TemplateError, pause: Pause
) -> Grade:
    if isinstance(filled, _TemplateError):
        return Grade(0.0, errors=frozenset({filled.kind}))
    errors = {"truncated_observation_error"} if filled.cut else set()
    return Grade(_score(grader, filled, pause), errors=frozenset(errors))


def _combine(formula: Formula, grades: Mapping[str, Grade]) -> Grade:
    rewards = {name: one.reward for name, one in grades.items()}
    errors = frozenset[str]().union(*(one.errors for one in grades.values()))
    try:
        reward = formula.value(rewards)
    except (ArithmeticError, ValueError):
        reward = math.nan
    if not math.isfinite(reward):
        return Grade(0.0, rewards, errors | {"other_error"})
    return Grade(reward, rewards, errors)


def _score(grader: StringCheck | TextSimilarity, filled: _Texts, pause: Pause) -> float:
    if isinstance(grader, StringCheck):
        return float(_OPERATIONS[grader.operation](filled.text, filled.reference))
    return MEASURES[grader.metric](filled.text, filled.reference, pause)


def _fill_in(template: str, variables: _Variables) -> tuple[str, bool]:
    """Fill in a template; returns its text, and whether it had to be cut."""
    pieces: list[str] = []
    end = size = 0
    for match in _TEMPLATE.finditer(template):
        pieces += [template[end : match.start()], variables.text(match[1])]
        size += len(pieces[-2]) + len(pieces[-1])
        end = match.end()
        if size > MAX_TEXT_LENGTH:
            break
    else:
        pieces.append(template[end:])
    text = "".join(pieces)
    return text[:MAX_TEXT_LENGTH], len(text) > MAX_TEXT_LENGTH


def _member(value: Any, key: str) -> Any:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list) and re.fullmatch("[0-9]{1,9}", key) and int(key) < len(value):
        return value[int(key)]
    raise _TemplateError("invalid_variable_error")
