"""What form a reply may take: response formats, tools, and which of them it may or must use."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from emojitune.dataset.tool_format import Tool
from emojitune.inference.decoding.params import ToolUse
from emojitune.server.http.json_bodies import StrictModel, refuse, refuse_type
from emojitune.server.http.unsupported import Ignored

_NAME = re.compile("[a-zA-Z0-9_-]+")
STRICT = (
    "True holds to all of the schema, and refuses (400) one with keywords that replies cannot be "
    "held to. Otherwise the schema is shown to the model as it is, and held to as far as can be."
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


class JsonSchema(StrictModel):
    """A JSON schema with a name."""

    name: Name = Field(description="Letters, digits, `_` and `-`.")
    description: Annotated[str | None, Ignored("the schema itself is shown to the model")] = None
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The schema that the reply is held to."
    )
    strict: bool | None = Field(None, description=STRICT)


class ResponseFormat(StrictModel):
    """What the reply is."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="Text, any JSON object, or JSON that fits a schema."
    )
    json_schema: JsonSchema | None = Field(None, description="Of the type `json_schema`.")

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            refuse(
                "missing_required_parameter",
                "Missing required parameter: '{param}'.",
                ".json_schema",
            )
        return self

    @property
    def resolved_schema(self) -> dict[str, Any] | None:
        """The schema to hold to; None leaves a reply free."""
        if self.type == "text":
            return None
        return (self.json_schema and self.json_schema.schema_) or {"type": "object"}

    @property
    def strict(self) -> bool:
        """Whether all of it must be held to."""
        return self.json_schema is not None and self.json_schema.strict is True


class FunctionDefinition(StrictModel):
    """A function that the model may ask to be called."""

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


class ToolDefinition(StrictModel):
    """A tool: a function."""

    type: Literal["function"] = Field(description="`function`; custom tools are not supported.")
    function: FunctionDefinition = Field(description="The function.")


class NamedFunction(StrictModel):
    """A function by its name."""

    name: str = Field(description="The name of the function.")


class ToolName(StrictModel):
    """A tool by its name."""

    type: Literal["function"] = Field(description="`function`.")
    function: NamedFunction = Field(description="Which function.")


class AllowedTools(StrictModel):
    """Some of the tools."""

    mode: Literal["auto", "required"] = Field(description="Whether one must be called.")
    tools: list[ToolName] = Field(min_length=1, description="Those that may be called.")


ToolChoiceMode = Literal["none", "auto", "required"]
FunctionCallMode = Literal["none", "auto"]
_MODES: Mapping[str, ToolChoiceMode] = {name: name for name in get_args(ToolChoiceMode)}


@dataclass(frozen=True, slots=True)
class ResolvedToolChoice:
    """Whether tools are called; with `names`, these alone."""

    mode: Literal["none", "auto", "required", "named"] = "auto"
    names: tuple[str, ...] | None = None


class ToolChoice(StrictModel):
    """Whether tools are called, and which."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"] = Field(
        description="`none`, `auto` and `required` may also stand alone, as a string."
    )
    function: NamedFunction | None = Field(None, description="The one that must be called.")
    allowed_tools: AllowedTools | None = Field(None, description="Those that may be called.")

    @model_validator(mode="after")
    def _has_its_part(self) -> Self:
        if self.type not in _MODES and getattr(self, self.type) is None:
            refuse(
                "missing_required_parameter",
                "Missing required parameter: '{param}'.",
                f".{self.type}",
            )
        return self

    @property
    def resolved(self) -> ResolvedToolChoice:
        """The choice without its form."""
        if self.function and self.type == "function":
            return ResolvedToolChoice("named", (self.function.name,))
        if self.allowed_tools and self.type == "allowed_tools":
            names = tuple(tool.function.name for tool in self.allowed_tools.tools)
            return ResolvedToolChoice(self.allowed_tools.mode, names)
        return ResolvedToolChoice(_MODES[self.type])


def expand_choice(choice: Any, names: Sequence[str] = get_args(ToolChoiceMode)) -> Any:
    """A choice that stands as a string, as an object."""
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
    """What may be called; None leaves the reply without calls. `param` is where `choice` stood."""
    known = {function.name: function.to_tool() for function in functions}
    if not known or choice.mode == "none":
        return None
    names = known if choice.names is None else choice.names
    tools = tuple(_tool(known, name, param) for name in names)
    return ToolUse(tools, choice.mode, parallel and choice.mode != "named")


def _tool(known: Mapping[str, Tool], name: str, param: str) -> Tool:
    if name not in known:
        what = "Tool choice" if param == "tool_choice" else "Function"
        given = "tools" if param == "tool_choice" else "functions"
        message = f"{what} '{name[:80]}' not found in '{given}' parameter."
        refuse("invalid_value", message, param)
    return known[name]
