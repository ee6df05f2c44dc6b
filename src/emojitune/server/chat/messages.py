"""The messages of a chat request, and what a model and the store get of them."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import BeforeValidator, Field, model_validator

from emojitune.dataset.example import Message
from emojitune.dataset.tool_format import call_text, reply_text, result_text
from emojitune.dataset.tool_order import PendingCalls
from emojitune.server.http.json_bodies import StrictModel, refuse, refuse_type
from emojitune.server.http.unsupported import Ignored, Refused

_JSON = re.compile("json", re.IGNORECASE)


class ChatContentPart(StrictModel):
    """A piece of a message's content; pictures, sounds and files are not understood."""

    type: Literal["text", "refusal"] = Field(
        description="`text`, or in an assistant message `refusal`."
    )
    text: str | None = Field(None, description="The text of a `text` part.")
    refusal: str | None = Field(None, description="The text of a `refusal` part.")
    prompt_cache_breakpoint: Annotated[
        Any, Ignored("the prefix cache finds common beginnings by itself")
    ] = None

    @model_validator(mode="after")
    def _has_its_text(self) -> Self:
        if getattr(self, self.type) is None:
            _refuse_missing(self.type)
        return self

    @property
    def plain_text(self) -> str:
        return self.text or self.refusal or ""


class StringPart(ChatContentPart):
    """A content that was sent as a string."""


def as_parts(content: Any) -> Any:
    if isinstance(content, str):
        return [StringPart(type="text", text=content)]
    if not isinstance(content, list):
        refuse_type(content, "one of a string or an array of objects")
    return content


Parts = Annotated[list[ChatContentPart], Field(min_length=1)]


class CalledFunction(StrictModel):
    """A function with the arguments that the model gave it."""

    name: str = Field(description="The name of the function.")
    arguments: str = Field(description="Its arguments, as JSON text.")


class ToolCall(StrictModel):
    """A tool call of an earlier reply."""

    id: str = Field(description="The id that the tool's answer refers to.")
    type: Literal["function"] = Field(description="`function`; custom tools are not supported.")
    function: CalledFunction = Field(description="What was called.")


class ChatMessage(StrictModel):
    """One message. What a reply of ours carries besides may be sent back with it."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Who speaks; `developer` is another word for `system`, `function` is the "
        "deprecated form of `tool`."
    )
    content: Annotated[
        Parts | None, BeforeValidator(as_parts, json_schema_input_type=str | Parts | None)
    ] = Field(None, description="A text, or an array of text parts.")
    name: Annotated[str | None, Ignored("chat templates have no place for a speaker's name")] = None
    refusal: str | None = Field(None, description="What an assistant message refused with.")
    tool_calls: list[ToolCall] | None = Field(
        None, description="The calls of an assistant message."
    )
    function_call: CalledFunction | None = Field(
        None, description="The deprecated form of `tool_calls`."
    )
    tool_call_id: str | None = Field(None, description="Which call a `tool` message answers.")
    annotations: Annotated[
        list[Any] | None, Ignored("it marks up a reply for its reader, not for the model")
    ] = None
    audio: Annotated[Any, Refused("messages are text")] = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.role == "assistant":
            if self.content is None and not (self._calls or self.refusal is not None):
                _refuse_missing("content")
            if self.part_refusal and len(self.content or ()) > 1:
                _refuse_mixed_parts()
            return self
        if self.content is None and self.role != "function":
            _refuse_missing("content")
        if self.role == "tool" and self.tool_call_id is None:
            _refuse_missing("tool_call_id")
        if self.role == "function" and self.name is None:
            _refuse_missing("name")
        for name in ("tool_calls", "function_call", "refusal"):
            if getattr(self, name):
                _refuse_for_role(name, "assistant")
        if self.part_refusal:
            _refuse_for_role("content", "assistant", "a refusal part")
        return self

    @property
    def part_refusal(self) -> str | None:
        """What a part of its content refused with."""
        return next((part.refusal for part in self.content or () if part.type == "refusal"), None)

    @property
    def plain_text(self) -> str:
        """Its text, without calls."""
        parts = self.content or ()
        return "".join(part.plain_text for part in parts) or self.refusal or ""

    def to_message(self) -> Message:
        """The message as the model reads it: calls and answers of tools as plain text."""
        if self.role in ("tool", "function"):
            return Message("tool", result_text(self.plain_text))
        calls = [call_text(call.name, call.arguments) for call in self._calls]
        return Message(self.role, reply_text(self.plain_text, calls))

    def to_stored(self, id: str) -> dict[str, Any]:
        """The message as the store lists it."""
        given = self.model_dump(exclude_unset=True, exclude={"content"})
        texts = [part for part in self.content or () if part.type == "text"]
        in_parts = any(not isinstance(part, StringPart) for part in texts)
        return {
            "id": id,
            "content": self.plain_text if texts else None,
            "content_parts": [part.model_dump(exclude_unset=True) for part in texts]
            if in_parts
            else None,
            "refusal": self.part_refusal,
            **given,
        }

    @property
    def _calls(self) -> list[CalledFunction]:
        legacy = [self.function_call] if self.function_call else []
        return [*(call.function for call in self.tool_calls or ()), *legacy]


def check_order(messages: Iterable[ChatMessage]) -> None:
    """Each tool message answers a call of the assistant message before it, and each is answered."""
    calls = PendingCalls()
    for number, message in enumerate(messages):
        if message.role == "tool":
            if not calls.answer(message.tool_call_id):
                refuse(
                    None,
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceding message with 'tool_calls'.",
                    f"messages.[{number}].role",
                )
            continue
        _require_results(calls, f"messages.[{number}].role")
        for call in message.tool_calls or ():
            calls.add(call.id)
    _require_results(calls, "messages")


def mentions_json(messages: Iterable[ChatMessage]) -> bool:
    """Whether the word stands in a message."""
    return any(_JSON.search(message.plain_text) for message in messages)


def _require_results(calls: PendingCalls, param: str) -> None:
    if unanswered := calls.close():
        refuse(
            None,
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            f"{', '.join(unanswered)}",
            param,
        )


def _refuse_missing(name: str) -> None:
    refuse("missing_required_parameter", "Missing required parameter: '{param}'.", f".{name}")


def _refuse_mixed_parts() -> NoReturn:
    message = "'{param}' has one or more text parts, or exactly one refusal part and no other."
    refuse("invalid_value", f"Invalid value: {message}", ".content")


def _refuse_for_role(name: str, role: str, what: str | None = None) -> None:
    found = what or f"'{name}'"
    message = f"Invalid value for '{{param}}': only {role} messages may have {found}."
    refuse("invalid_value", message, f".{name}")
