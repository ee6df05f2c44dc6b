"""Tools and tool choices in the form of responses; the rules are those of generation/tools.py."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emojitune.inference.decoding.params import ToolUse
from emojitune.server.generation.tools import (
    FunctionDefinition,
    ResolvedToolChoice,
    ToolChoiceMode,
    expand_choice,
    resolve_tools,
)
from emojitune.server.http.json_bodies import StrictModel, refuse
from emojitune.server.http.unsupported import Ignored, Refused


class _Function(StrictModel):
    type: Literal["function"] = Field(
        description="`function`; custom and hosted tools are not supported."
    )


# `_Function` stands last so that its field comes first: another type of tool is reported as such.
class FunctionTool(FunctionDefinition, _Function):
    """A function that the model may call."""

    output_schema: Annotated[
        dict[str, Any] | None,
        Ignored("what a function answers is shown to the model as it is"),
        Field(description="A JSON schema of its output."),
    ] = None
    defer_loading: Annotated[
        Any,
        Refused("there is no search for tools", [False]),
        Field(description="Load it when a search for tools finds it."),
    ] = None
    allowed_callers: Annotated[
        Any,
        Refused("functions are called by the model alone", [["direct"]]),
        Field(description="Who may call it."),
    ] = None
    async_: Annotated[
        Any,
        Refused("a function's answer comes with the next request", [False]),
        Field(alias="async", description="Answer it later."),
    ] = None

    def echo(self) -> dict[str, Any]:
        """Return the tool as the response shows it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": self.strict is not False,
        }


class FunctionName(StrictModel):
    """A function by its name."""

    type: Literal["function"] = Field(description="`function`.")
    name: str = Field(description="The name of the function.")


class ResponseToolChoice(StrictModel):
    """Whether tools are called, and which."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"] = Field(
        description="`none`, `auto` and `required` stand alone, as a string."
    )
    name: str | None = Field(None, description="The function that must be called.")
    mode: Literal["auto", "required"] | None = Field(
        None, description="Whether one of the allowed tools must be called."
    )
    tools: list[FunctionName] | None = Field(
        None, min_length=1, description="The tools that may be called."
    )

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        required = {"function": ["name"], "allowed_tools": ["mode", "tools"]}.get(self.type, [])
        for key in ("name", "mode", "tools"):
            given = getattr(self, key) is not None
            if given and key not in required:
                refuse("unknown_parameter", "Unknown parameter: '{param}'.", f".{key}")
            if not given and key in required:
                message = "Missing required parameter: '{param}'."
                refuse("missing_required_parameter", message, f".{key}")
        return self

    @property
    def resolved(self) -> ResolvedToolChoice:
        """The choice as resolve_tools takes it."""
        if self.type == "function":
            return ResolvedToolChoice("named", (self.name or "",))
        if self.type == "allowed_tools":
            return ResolvedToolChoice(
                self.mode or "auto", tuple(tool.name for tool in self.tools or ())
            )
        return ResolvedToolChoice(self.type)

    def echo(self) -> str | dict[str, Any]:
        """Return the choice as the response shows it."""
        shown = self.model_dump(exclude_none=True)
        return self.type if len(shown) == 1 else shown


ToolChoice = Annotated[
    ResponseToolChoice | None,
    BeforeValidator(
        expand_choice, json_schema_input_type=ToolChoiceMode | ResponseToolChoice | None
    ),
]


def tool_use(
    tools: Sequence[FunctionTool], choice: ResponseToolChoice | None, parallel: bool
) -> ToolUse | None:
    """Resolve the tools that a reply may call; None if it may call none."""
    resolved = choice.resolved if choice else ResolvedToolChoice()
    if not tools and (resolved.names is not None or resolved.mode == "required"):
        what = resolved.names[0][:80] if resolved.names else resolved.mode
        refuse(
            "invalid_value",
            f"Tool choice '{what}' must be specified with 'tools' parameter.",
            "tool_choice",
        )
    return resolve_tools(tools, resolved, parallel)
