"""Function tools: definitions, and which of them a reply may or must call.

Chat completions and responses spell them differently; the rules here are common to both.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from emojitune.dataset.tool_format import Tool
from emojitune.inference.decoding.params import ToolUse
from emojitune.server.http.json_bodies import StrictModel, refuse, refuse_type

_NAME = re.compile("[a-zA-Z0-9_-]+")
STRICT = (
    "True enforces the entire schema, and refuses (400) one with keywords that cannot be enforced. "
    "Otherwise the schema is shown to the model as it is, and enforced as far as possible."
)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        refuse(
            "invalid_value",
            "Invalid '{param}': string does not match pattern. Expected a string that matches the "
            "pattern '^[a-zA-Z0-9_-]+$'.",
        )
    return name


Name = Annotated[str, Field(max_length=64), AfterValidator(_checked_name)]


class FunctionDefinition(StrictModel):
    """A function that the model may call."""

    name: Name = Field(description="Letters, digits, `_` and `-`.")
    description: str | None = Field(None, description="What it does, for the model to read.")
    parameters: dict[str, Any] | None = Field(
        None, description="A JSON schema of its arguments, of the type `object`; none, if absent."
    )
    strict: bool | None = Field(None, description=STRICT)

    @model_validator(mode="after")
    def _takes_an_object(self) -> Self:
        kind = (self.parameters or {}).get("type")
        if kind not in (None, "object"):
            refuse(
                "invalid_function_parameters",
                f"Invalid schema for function '{self.name}': schema must be a JSON Schema of "
                f"'type: \"object\"', got 'type: \"{kind}\"'.",
                ".parameters",
            )
        return self

    def to_tool(self) -> Tool:
        return Tool.from_api(self.name, self.parameters, self.description, self.strict is True)


ToolChoiceMode = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class ResolvedToolChoice:
    """Whether a reply calls tools, and which of them; None stands for all."""

    mode: Literal["none", "auto", "required", "named"] = "auto"
    names: tuple[str, ...] | None = None


def expand_choice(choice: Any, names: Sequence[str] = get_args(ToolChoiceMode)) -> Any:
    """Expand a choice that is a string to an object with that type; `names` are those supported."""
    if isinstance(choice, dict):
        return choice
    if not isinstance(choice, str):
        refuse_type(choice, "one of a string or an object")
    if choice not in names:
        *others, last = (f"'{name}'" for name in names)
        comma = "," if len(others) > 1 else ""
        supported = f"Supported values are: {', '.join(others)}{comma} and {last}."
        refuse("invalid_value", f"Invalid value: '{choice[:80]}'. {supported}")
    return {"type": choice}


def resolve_tools(
    functions: Sequence[FunctionDefinition],
    choice: ResolvedToolChoice,
    parallel: bool,
    param: Literal["tool_choice", "function_call"] = "tool_choice",
) -> ToolUse | None:
    """Resolve the tools that a reply may call; None if it may call none.

    Args:
        param: The parameter that the choice came in, for error messages.
    """
    by_name = {function.name: function.to_tool() for function in functions}
    if not by_name or choice.mode == "none":
        return None
    names = by_name if choice.names is None else choice.names
    tools = tuple(_tool(by_name, name, param) for name in names)
    return ToolUse(tools, choice.mode, parallel and choice.mode != "named")


def _tool(by_name: Mapping[str, Tool], name: str, param: str) -> Tool:
    if name not in by_name:
        what = "Tool choice" if param == "tool_choice" else "Function"
        given = "tools" if param == "tool_choice" else "functions"
        message = f"{what} '{name[:80]}' not found in '{given}' parameter."
        refuse("invalid_value", message, param)
    return by_name[name]
