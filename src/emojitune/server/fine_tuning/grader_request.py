"""Graders in requests: their schemas, and the graders built from those that are supported."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from emojitune.errors import InvalidRequestError
from emojitune.evaluation.graders import graders
from emojitune.evaluation.graders.formula import parse_formula
from emojitune.server.http.json_bodies import UNION_TAG, StrictModel, nulls_dropped, refuse

_Number = int | float

_MAX_GRADERS = 20
_UNSUPPORTED = {
    "python": "it runs a program that came with the request, and this server runs none",
    "score_model": "it asks a large model for a score, and there is none here",
    "label_model": "it asks a large model for a label, and there is none here",
}
_TYPES = ("string_check", "text_similarity", "multi", *_UNSUPPORTED)


class StringCheck(StrictModel):
    """Compares two texts: 1 when the comparison holds, else 0."""

    type: Literal["string_check"] = Field(description="The type of the grader.")
    name: str = Field(min_length=1, description="The name of its score in a formula.")
    input: str = Field(description="The text to grade; may contain templates.")
    reference: str = Field(description="The text to compare with; may contain templates.")
    operation: Literal["eq", "ne", "like", "ilike"] = Field(
        description="Equal, not equal, contains, or contains regardless of case."
    )


class TextSimilarity(StrictModel):
    """Measures the similarity of two texts, from 0 to 1."""

    type: Literal["text_similarity"] = Field(description="The type of the grader.")
    name: str = Field(min_length=1, description="The name of its score in a formula.")
    input: str = Field(description="The text to grade; may contain templates.")
    reference: str = Field(description="The text to compare with; may contain templates.")
    evaluation_metric: Literal[
        "cosine",
        "fuzzy_match",
        "bleu",
        "gleu",
        "meteor",
        "rouge_1",
        "rouge_2",
        "rouge_3",
        "rouge_4",
        "rouge_5",
        "rouge_l",
    ] = Field(description="The metric; cosine needs an embedding model and is refused here.")


class Python(StrictModel):
    """Runs a program: validated, then refused."""

    type: Literal["python"] = Field(description="The type of the grader.")
    name: str = Field(min_length=1, description="The name of its score in a formula.")
    source: str = Field(description="The program.")
    image_tag: str | None = Field(None, description="The image that the program runs in.")


class ScoreModel(StrictModel):
    """Prompts a model for a score: validated, then refused."""

    type: Literal["score_model"] = Field(description="The type of the grader.")
    name: str = Field(min_length=1, description="The name of its score in a formula.")
    model: str = Field(min_length=1, description="The grading model.")
    input: list[dict[str, Any]] = Field(description="The messages of its prompt.")
    range: list[_Number] | None = Field(
        None, min_length=2, max_length=2, description="The lowest and the highest score."
    )
    sampling_params: dict[str, Any] | None = Field(
        None, description="The sampling parameters of the model."
    )


class LabelModel(StrictModel):
    """Prompts a model for a label: validated, then refused."""

    type: Literal["label_model"] = Field(description="The type of the grader.")
    name: str = Field(min_length=1, description="The name of its score in a formula.")
    model: str = Field(min_length=1, description="The grading model.")
    input: list[dict[str, Any]] = Field(description="The messages of its prompt.")
    labels: list[str] = Field(description="The possible labels.")
    passing_labels: list[str] = Field(description="The labels that score 1.")


def _type_of(value: Any) -> str:
    kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    # If anything else is wrong, every type reports it.
    return UNION_TAG + (kind if isinstance(kind, str) else _TYPES[0])


_SimpleGrader = Annotated[
    Annotated[StringCheck, Tag(UNION_TAG + "string_check")]
    | Annotated[TextSimilarity, Tag(UNION_TAG + "text_similarity")]
    | Annotated[Python, Tag(UNION_TAG + "python")]
    | Annotated[ScoreModel, Tag(UNION_TAG + "score_model")]
    | Annotated[LabelModel, Tag(UNION_TAG + "label_model")],
    Discriminator(_type_of),
]

_NamedGraders = Annotated[dict[str, _SimpleGrader], Field(min_length=1, max_length=_MAX_GRADERS)]


def _shape_of(value: Any) -> str:
    if isinstance(value, list):
        return UNION_TAG + "list"
    single = isinstance(value.get("type"), str) if isinstance(value, Mapping) else True
    return UNION_TAG + ("single" if single and value is not None else "names")


_SubGraders = Annotated[
    Annotated[_SimpleGrader, Tag(UNION_TAG + "single")]
    | Annotated[
        list[_SimpleGrader], Field(min_length=1, max_length=_MAX_GRADERS), Tag(UNION_TAG + "list")
    ]
    | Annotated[
        _NamedGraders, nulls_dropped(_NamedGraders, most=_MAX_GRADERS), Tag(UNION_TAG + "names")
    ],
    Discriminator(_shape_of),
]


class Multi(StrictModel):
    """Combines other graders' scores by a formula over their names."""

    type: Literal["multi"] = Field(description="The type of the grader.")
    name: str = Field(min_length=1, description="The name of the grader.")
    graders: _SubGraders = Field(
        description="The graders by their names in the formula; a single grader, or each of a "
        "list, has its own name."
    )
    calculate_output: str = Field(
        description="Numbers, names, + - * / ^, brackets, min, max, abs, floor, ceil, exp, sqrt, "
        "log. TYPE_score is another name for the score of the only grader of that type."
    )

    @field_validator("graders")
    @classmethod
    def _names_differ(cls, value: Any) -> Any:
        if isinstance(value, list) and len({part.name for part in value}) < len(value):
            refuse("invalid_value", "Invalid '{param}': no two graders may have one name.")
        return value

    @property
    def parts(self) -> dict[str, Any]:
        """The graders by name."""
        if isinstance(self.graders, dict):
            return self.graders
        listed = self.graders if isinstance(self.graders, list) else [self.graders]
        return {part.name: part for part in listed}


AnyGrader = Annotated[
    Annotated[StringCheck, Tag(UNION_TAG + "string_check")]
    | Annotated[TextSimilarity, Tag(UNION_TAG + "text_similarity")]
    | Annotated[Python, Tag(UNION_TAG + "python")]
    | Annotated[ScoreModel, Tag(UNION_TAG + "score_model")]
    | Annotated[LabelModel, Tag(UNION_TAG + "label_model")]
    | Annotated[Multi, Tag(UNION_TAG + "multi")],
    Discriminator(_type_of),
]


def build_grader(grader: AnyGrader) -> graders.Grader:
    """The grader that a request describes.

    Raises:
        InvalidRequestError: Its type is not supported here, a template or the formula is
            invalid, or the texts are too long.
    """
    parts_in_request = grader.parts if isinstance(grader, Multi) else {grader.name: grader}
    graders.check_length(sum(map(_template_length, parts_in_request.values())), "as templates")
    if not isinstance(grader, Multi):
        return _build_simple(grader, "grader")
    parts = {
        name: _build_simple(part, f"grader.graders.{name}") for name, part in grader.parts.items()
    }
    by_type = {
        f"{kind}_score": [name for name, part in grader.parts.items() if part.type == kind]
        for kind in ("string_check", "text_similarity")
    }
    for alias, names in by_type.items():
        if len(names) == 1:
            parts.setdefault(alias, parts[names[0]])
    formula = parse_formula(grader.calculate_output, parts)
    return graders.Multi(grader.name, parts, formula)


def _template_length(grader: Any) -> int:
    if isinstance(grader, StringCheck | TextSimilarity):
        return len(grader.input) + len(grader.reference)
    return 0  # refused for its type


def _build_simple(grader: Any, param: str) -> graders.StringCheck | graders.TextSimilarity:
    if isinstance(grader, StringCheck):
        _check_templates(grader, param)
        return graders.StringCheck(grader.name, grader.input, grader.reference, grader.operation)
    if not isinstance(grader, TextSimilarity):
        raise _unsupported(
            f"The grader '{grader.type}'", _UNSUPPORTED[grader.type], f"{param}.type"
        )
    if grader.evaluation_metric == "cosine":
        why = "it compares the embeddings of a large model, and there is none here"
        raise _unsupported("The metric 'cosine'", why, f"{param}.evaluation_metric")
    _check_templates(grader, param)
    return graders.TextSimilarity(
        grader.name, grader.input, grader.reference, grader.evaluation_metric
    )


def _check_templates(grader: StringCheck | TextSimilarity, param: str) -> None:
    graders.check_templates(grader.input, f"{param}.input")
    graders.check_templates(grader.reference, f"{param}.reference")


def _unsupported(what: str, why: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{what} isn't built here: {why}. string_check, text_similarity (all metrics but cosine) "
        "and multi are.",
        code="unsupported_value",
        param=param,
    )
