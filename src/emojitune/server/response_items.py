"""Items of a conversation: in requests, as the API shows them, and as chat models take them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emojitune.dataset.example import Message
from emojitune.server.parameters import Ignored
from emojitune.server.requests import Body, refuse, type_name
from emojitune.store.ids import new_id

_SENT_BACK = Ignored("a reply may be sent back with all that it carries")


def _as_message(value: Any) -> Any:
    _require_text_or_list(value)
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _as_parts(content: Any) -> Any:
    _require_text_or_list(content)
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


def _require_text_or_list(value: Any) -> None:
    if not isinstance(value, str | list):
        refuse(
            "invalid_type",
            "Invalid type for '{param}': expected a string or an array of objects, but got "
            f"{type_name(value)} instead.",
        )


class ContentPart(Body):
    """A piece of a message: text that is given, was replied, or was refused."""

    type: Literal["input_text", "output_text", "refusal"] = Field(
        description="Pictures, files and sounds are not understood."
    )
    text: str | None = Field(None, description="The text, of all but a refusal.")
    refusal: str | None = Field(None, description="The text of a refusal.")
    annotations: Annotated[
        list[Any] | None, _SENT_BACK, Field(description="As a reply has them.")
    ] = None
    logprobs: Annotated[list[Any] | None, _SENT_BACK, Field(description="As a reply has them.")] = (
        None
    )
    parsed: Annotated[Any, _SENT_BACK, Field(description="What the SDK made of the text.")] = None

    @model_validator(mode="after")
    def _has_its_text(self) -> Self:
        needed = "refusal" if self.type == "refusal" else "text"
        if getattr(self, needed) is None:
            message = "Missing required parameter: '{param}'."
            refuse("missing_required_parameter", message, f".{needed}")
        return self

    @property
    def said(self) -> str:
        return (self.refusal if self.type == "refusal" else self.text) or ""


class InputItem(Body):
    """A message of the conversation, in the short or the long form, or a reply sent back."""

    type: Literal["message"] = Field("message", description="Messages are the only items.")
    role: Literal["user", "assistant", "system", "developer"] = Field(
        description="Who says it; system and developer are one."
    )
    content: Annotated[
        list[ContentPart],
        BeforeValidator(_as_parts, json_schema_input_type=str | list[ContentPart]),
        Field(description="A text, or its parts."),
    ]
    id: str | None = Field(None, min_length=1, description="The item's id; one is made if need be.")
    status: Annotated[
        Literal["in_progress", "completed", "incomplete"] | None,
        Ignored("an item of the input is complete"),
        Field(description="As a reply has it."),
    ] = None
    phase: Annotated[
        Literal["commentary", "final_answer"] | None,
        Ignored("models do not reason apart"),
        Field(description="As a reply has it."),
    ] = None

    def to_item(self) -> dict[str, Any]:
        """The item as the API shows it."""
        item = {"id": self.id or new_id("msg_", 48), "type": "message", "status": "completed"}
        own = "output_text" if self.role == "assistant" else "input_text"
        return {**item, "role": self.role, "content": [_part(own, part) for part in self.content]}


def _part(kind: str, part: ContentPart) -> dict[str, Any]:
    if kind == "input_text":
        return {"type": kind, "text": part.said}
    if part.type == "refusal":
        return {"type": "refusal", "refusal": part.said}
    return {"type": kind, "text": part.said, "annotations": [], "logprobs": []}


def to_message(item: Mapping[str, Any]) -> Message:
    """An item as the chat models take it."""
    texts = (part["refusal" if part["type"] == "refusal" else "text"] for part in item["content"])
    return Message(item["role"], "".join(texts))


Input = Annotated[
    list[InputItem],
    BeforeValidator(_as_message, json_schema_input_type=str | list[InputItem]),
    Field(min_length=1, description="What is said to the model: a text, or messages."),
]
