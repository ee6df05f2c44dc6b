"""The prompt of a chat completion: messages, and the tools and format of the reply."""

from typing import Annotated, Any, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from emojitune.dataset.example import Message
from emojitune.inference.decoding.params import ToolUse
from emojitune.server.chat.formats import (
    FunctionCallMode,
    NamedFunction,
    ResponseFormat,
    ToolChoice,
    ToolDefinition,
)
from emojitune.server.chat.messages import ChatMessage, check_tool_order, mentions_json
from emojitune.server.generation.request import ModelName, refuse_without
from emojitune.server.generation.tools import (
    FunctionDefinition,
    ResolvedToolChoice,
    ToolChoiceMode,
    expand_choice,
    resolve_tools,
)
from emojitune.server.http.json_bodies import StrictModel, refuse


def _from_function_call(choice: Any) -> Any:
    """Convert a `function_call` to the form of `tool_choice`."""
    if isinstance(choice, dict):
        if choice.get("name") is None:
            refuse("missing_required_parameter", "Missing required parameter: '{param}'.", ".name")
        return {"type": "function", "function": choice}
    return expand_choice(choice, get_args(FunctionCallMode))


class ChatPrompt(StrictModel):
    """Parameters of a chat completion that decide what the model reads."""

    model: ModelName
    messages: list[ChatMessage] = Field(min_length=1, description="The conversation so far.")
    response_format: ResponseFormat | None = Field(
        None, description="Text, or JSON that fits a schema."
    )
    tools: Annotated[list[ToolDefinition], Field(max_length=128)] | None = Field(
        None, description="Functions that the model may call."
    )
    tool_choice: Annotated[
        ToolChoice | None,
        BeforeValidator(expand_choice, json_schema_input_type=ToolChoiceMode | ToolChoice | None),
    ] = Field(None, description="Whether a tool is called, and which; `auto` if absent.")
    parallel_tool_calls: bool | None = Field(
        None, description="Whether one reply may hold several calls; true if absent."
    )
    functions: list[FunctionDefinition] | None = Field(
        None, min_length=1, max_length=128, description="The deprecated form of `tools`."
    )
    function_call: Annotated[
        ToolChoice | None,
        BeforeValidator(
            _from_function_call, json_schema_input_type=FunctionCallMode | NamedFunction | None
        ),
    ] = Field(None, description="The deprecated form of `tool_choice`.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_tools()
        self._check_format()
        check_tool_order(self.messages)
        return self

    def _check_tools(self) -> None:
        if self.tools and self.functions:
            refuse(
                "invalid_parameter_combination",
                "'functions' is the deprecated form of 'tools', and not allowed beside it. Leave "
                "'functions' out.",
                "functions",
            )
        if self.tool_choice is not None and not self.tools:
            refuse_without("tool_choice", "'tools' are specified")
        if self.parallel_tool_calls is False and not self.tools:
            refuse_without("parallel_tool_calls", "'tools' are specified")
        if self.function_call is not None and not self.functions:
            refuse_without("function_call", "'functions' are specified")
        _ = self.tool_use  # refuses a choice of a tool that is not there

    def _check_format(self) -> None:
        form = self.response_format
        if form is not None and form.type == "json_object" and not mentions_json(self.messages):
            refuse(
                None,
                "'messages' must contain the word 'json' in some form, to use 'response_format' "
                "of type 'json_object'.",
                "messages",
            )

    @property
    def tool_use(self) -> ToolUse | None:
        """The tools that the reply may or must call; None if it may call none."""
        if self.functions:
            choice = _resolved(self.function_call)
            return resolve_tools(self.functions, choice, parallel=False, param="function_call")
        functions = [tool.function for tool in self.tools or ()]
        parallel = self.parallel_tool_calls is not False
        return resolve_tools(functions, _resolved(self.tool_choice), parallel)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation as the model reads it."""
        return tuple(message.to_message() for message in self.messages)


def _resolved(choice: ToolChoice | None) -> ResolvedToolChoice:
    return choice.resolved if choice else ResolvedToolChoice()
