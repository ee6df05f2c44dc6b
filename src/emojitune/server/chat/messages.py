"""Messages of a chat request: as sent, as the model reads them, and as the store lists them."""

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
    """A part of a message's content: text, since images, sounds and files are not supported."""

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
    """A content that is sent as a string, not as an array of parts."""


def as_parts(content: Any) -> Any:
    if isinstance(content, str):
        return [StringPart(type="text", text=content)]
    if not isinstance(content, list):
        refuse_type(content, "one of a string or an array of objects")
    return content


Parts = Annotated[list[ChatContentPart], Field(min_length=1)]


class CalledFunction(StrictModel):
    """A called function with its arguments."""

    name: str = Field(description="The name of the function.")
    arguments: str = Field(description="Its arguments, as JSON text.")


class ToolCall(StrictModel):
    """A tool call of an earlier reply."""

    id: str = Field(description="The id that the message with its result refers to.")
    type: Literal["function"] = Field(description="`function`; custom tools are not supported.")
    function: CalledFunction = Field(description="The called function.")


class ChatMessage(StrictModel):
    """A message. A reply of this server may be sent back with all that it carries."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Who speaks; `developer` is another word for `system`, `function` is the "
        "deprecated form of `tool`."
    )
    content: Annotated[
        Parts | None, BeforeValidator(as_parts, json_schema_input_type=str | Parts | None)
    ] = Field(None, description="A text, or an array of text parts.")
    name: Annotated[str | None, Ignored("chat templates have no place for a speaker's name")] = None
    refusal: str | None = Field(None, description="The refusal of an assistant message.")
    tool_calls: list[ToolCall] | None = Field(
        None, description="The calls of an assistant message."
    )
    function_call: CalledFunction | None = Field(
        None, description="The deprecated form of `tool_calls`."
    )
    tool_call_id: str | None = Field(
        None, description="The id of the call that a `tool` message answers."
    )
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
        """The refusal among the parts of its content."""
        return next((part.refusal for part in self.content or () if part.type == "refusal"), None)

    @property
    def plain_text(self) -> str:
        """Its text or refusal, without calls."""
        parts = self.content or ()
        return "".join(part.plain_text for part in parts) or self.refusal or ""

    def to_message(self) -> Message:
        """Return the message as the model reads it: calls and results of tools are plain text."""
        if self.role in ("tool", "function"):
            return Message("tool", result_text(self.plain_text))
        calls = [call_text(call.name, call.arguments) for call in self._calls]
        return Message(self.role, reply_text(self.plain_text, calls))

    def to_stored(self, id: str) -> dict[str, Any]:
        """Return the message as the API lists it for a stored completion."""
        fields = self.model_dump(exclude_unset=True, exclude={"content"})
        texts = [part for part in self.content or () if part.type == "text"]
        in_parts = any(not isinstance(part, StringPart) for part in texts)
        return {
            "id": id,
            "content": self.plain_text if texts else None,
            "content_parts": [part.model_dump(exclude_unset=True) for part in texts]
            if in_parts
            else None,
            "refusal": self.part_refusal,
            **fields,
        }

    @property
    def _calls(self) -> list[CalledFunction]:
        legacy = [self.function_call] if self.function_call else []
        return [*(call.function for call in self.tool_calls or ()), *legacy]


def check_tool_order(messages: Iterable[ChatMessage]) -> None:
    """Check that tool messages answer the calls of the assistant message before them, and all."""
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
    """Whether a message contains the word."""
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
    what = what or f"'{name}'"
    message = f"Invalid value for '{{param}}': only {role} messages may have {what}."
    refuse("invalid_value", message, f".{name}")
