"""Response formats, tools and tool choices in the forms of chat completions."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emojitune.server.generation.tools import (
    STRICT,
    FunctionDefinition,
    Name,
    ResolvedToolChoice,
)
from emojitune.server.http.json_bodies import StrictModel, refuse
from emojitune.server.http.unsupported import Ignored


class JsonSchema(StrictModel):
    """A JSON schema with a name."""

    name: Name = Field(description="Letters, digits, `_` and `-`.")
    description: Annotated[str | None, Ignored("the schema itself is shown to the model")] = None
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The schema that constrains the reply."
    )
    strict: bool | None = Field(None, description=STRICT)


class ResponseFormat(StrictModel):
    """The format of the reply."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="Text, any JSON object, or JSON that fits a schema."
    )
    json_schema: JsonSchema | None = Field(
        None, description="The schema; required with the type `json_schema`."
    )

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
        """The schema that constrains the reply; None leaves it unconstrained."""
        if self.type == "text":
            return None
        return (self.json_schema and self.json_schema.schema_) or {"type": "object"}

    @property
    def strict(self) -> bool:
        """Whether the entire schema must be enforced."""
        return self.json_schema is not None and self.json_schema.strict is True


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
    """A choice of some of the tools."""

    mode: Literal["auto", "required"] = Field(description="Whether one must be called.")
    tools: list[ToolName] = Field(min_length=1, description="The tools that may be called.")


FunctionCallMode = Literal["none", "auto"]


class ToolChoice(StrictModel):
    """Whether tools are called, and which."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"] = Field(
        description="`none`, `auto` and `required` may also stand alone, as a string."
    )
    function: NamedFunction | None = Field(None, description="The function that must be called.")
    allowed_tools: AllowedTools | None = Field(None, description="The tools that may be called.")

    @model_validator(mode="after")
    def _has_its_part(self) -> Self:
        if self.type in ("function", "allowed_tools") and getattr(self, self.type) is None:
            refuse(
                "missing_required_parameter",
                "Missing required parameter: '{param}'.",
                f".{self.type}",
            )
        return self

    @property
    def resolved(self) -> ResolvedToolChoice:
        """The choice as resolve_tools takes it."""
        if self.type == "function":
            assert self.function is not None
            return ResolvedToolChoice("named", (self.function.name,))
        if self.type == "allowed_tools":
            assert self.allowed_tools is not None
            names = tuple(tool.function.name for tool in self.allowed_tools.tools)
            return ResolvedToolChoice(self.allowed_tools.mode, names)
        return ResolvedToolChoice(self.type)
