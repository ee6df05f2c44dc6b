"""Items of a conversation: in requests, as the API shows them, and as chat models read them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from emojitune.dataset.example import Message
from emojitune.dataset.tool_format import call_text, reply_text, result_text
from emojitune.dataset.tool_order import PendingCalls
from emojitune.errors import InvalidRequestError
from emojitune.server.generation.tools import Name
from emojitune.server.http.json_bodies import UNION_TAG, StrictModel, refuse, type_name
from emojitune.server.http.unsupported import Ignored, Refused
from emojitune.store.ids import new_id

_SENT_BACK = Ignored("a reply may be sent back with all that it carries")


def _as_items(value: Any) -> Any:
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


class ResponseContentPart(StrictModel):
    """A part of a message: text of the input, of an earlier reply, or of a refusal."""

    type: Literal["input_text", "output_text", "refusal"] = Field(
        description="Images, files and sounds are not supported."
    )
    text: str | None = Field(None, description="The text; not of a refusal.")
    refusal: str | None = Field(None, description="The text of a refusal.")
    annotations: Annotated[
        list[Any] | None, _SENT_BACK, Field(description="As a reply has them.")
    ] = None
    logprobs: Annotated[list[Any] | None, _SENT_BACK, Field(description="As a reply has them.")] = (
        None
    )
    parsed: Annotated[Any, _SENT_BACK, Field(description="The text as the SDK has parsed it.")] = (
        None
    )

    @model_validator(mode="after")
    def _has_its_text(self) -> Self:
        needed = "refusal" if self.type == "refusal" else "text"
        if getattr(self, needed) is None:
            message = "Missing required parameter: '{param}'."
            refuse("missing_required_parameter", message, f".{needed}")
        return self

    @property
    def plain_text(self) -> str:
        return (self.refusal if self.type == "refusal" else self.text) or ""


class _Item(StrictModel):
    id: str | None = Field(None, min_length=1, description="The item's id; generated if absent.")
    status: Annotated[
        Literal["in_progress", "completed", "incomplete"] | None,
        Ignored("an item of the input is complete"),
        Field(description="As a reply has it."),
    ] = None


class MessageItem(_Item):
    """A message of the conversation, in the short or the long form, or an earlier reply."""

    type: Literal["message"] = Field("message", description="`message`, or left out.")
    role: Literal["user", "assistant", "system", "developer"] = Field(
        description="The speaker; `developer` is another word for `system`."
    )
    content: Annotated[
        list[ResponseContentPart],
        BeforeValidator(_as_parts, json_schema_input_type=str | list[ResponseContentPart]),
        Field(description="A text, or its parts."),
    ]
    phase: Annotated[
        Literal["commentary", "final_answer"] | None,
        Ignored("models do not reason apart"),
        Field(description="As a reply has it."),
    ] = None

    def to_item(self) -> dict[str, Any]:
        """Return the item as the API shows it."""
        item = {"id": self.id or new_id("msg_", 48), "type": "message", "status": "completed"}
        kind = "output_text" if self.role == "assistant" else "input_text"
        return {**item, "role": self.role, "content": [_part(kind, part) for part in self.content]}


def _part(kind: str, part: ResponseContentPart) -> dict[str, Any]:
    if kind == "input_text":
        return {"type": kind, "text": part.plain_text}
    if part.type == "refusal":
        return {"type": "refusal", "refusal": part.plain_text}
    return {"type": kind, "text": part.plain_text, "annotations": [], "logprobs": []}


class _CallItem(_Item):
    call_id: str = Field(
        min_length=1, max_length=64, description="The id that a call and its output share."
    )
    namespace: Annotated[
        Any, Refused("functions stand in no namespaces"), Field(description="Where its name is.")
    ] = None
    caller: Annotated[
        Any,
        Refused("functions are called by the model alone", [{"type": "direct"}]),
        Field(description="Who called it."),
    ] = None


class FunctionCall(_CallItem):
    """A call of an earlier reply."""

    type: Literal["function_call"] = Field(description="`function_call`.")
    name: Name = Field(description="The name of the function.")
    arguments: str = Field(description="Its arguments, as JSON text.")
    parsed_arguments: Annotated[
        Any, _SENT_BACK, Field(description="The arguments as the SDK has parsed them.")
    ] = None

    def to_item(self) -> dict[str, Any]:
        """Return the item as the API shows it."""
        head = {"id": self.id or new_id("fc_", 48), "type": self.type, "status": "completed"}
        return {**head, "call_id": self.call_id, "name": self.name, "arguments": self.arguments}


class FunctionOutputPart(StrictModel):
    """A part of a function's output."""

    type: Literal["input_text"] = Field(description="Images and files are not supported.")
    text: str = Field(description="The text.")


class FunctionCallOutput(_CallItem):
    """The output of a called function."""

    type: Literal["function_call_output"] = Field(description="`function_call_output`.")
    output: Annotated[
        list[FunctionOutputPart],
        BeforeValidator(_as_parts, json_schema_input_type=str | list[FunctionOutputPart]),
        Field(description="A text, or its parts."),
    ]
    name: Annotated[
        str | None,
        Ignored("its call has the name already"),
        Field(description="The name of the function."),
    ] = None

    def to_item(self) -> dict[str, Any]:
        """Return the item as the API shows it."""
        head = {"id": self.id or new_id("fco_", 48), "type": self.type, "status": "completed"}
        parts = [part.model_dump() for part in self.output]
        output = parts[0]["text"] if len(parts) == 1 else parts
        return {**head, "call_id": self.call_id, "output": output}


class ItemReference(StrictModel):
    """A reference to a stored item, in place of the item."""

    type: Literal["item_reference"] = Field(
        "item_reference", description="`item_reference`, or left out."
    )
    id: str = Field(
        min_length=1, description="The id of an item of a stored response's input or output."
    )


class Reasoning(StrictModel):
    """An item of a reasoning model that a client sends back; it is ignored."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["reasoning"] = Field(description="`reasoning`; the item is ignored.")


def _item_type(item: Any) -> str:
    """Tag an item's type; without one it is a message, or a reference if an id is all it has."""
    if not isinstance(item, Mapping):
        return UNION_TAG + "message"
    if isinstance(kind := item.get("type"), str):
        return UNION_TAG + kind
    present = {key for key, value in item.items() if value is not None}
    return UNION_TAG + ("item_reference" if present == {"id"} else "message")


InputItem = Annotated[
    Annotated[MessageItem, Tag(UNION_TAG + "message")]
    | Annotated[FunctionCall, Tag(UNION_TAG + "function_call")]
    | Annotated[FunctionCallOutput, Tag(UNION_TAG + "function_call_output")]
    | Annotated[ItemReference, Tag(UNION_TAG + "item_reference")]
    | Annotated[Reasoning, Tag(UNION_TAG + "reasoning")],
    Discriminator(_item_type),
]


def to_messages(items: Iterable[Mapping[str, Any]]) -> Iterator[Message]:
    """Convert items to messages: calls become part of the assistant message that they follow."""
    text: str | None = None  # of an assistant message that calls may follow
    calls: list[str] = []
    for item in items:
        if item["type"] == "function_call":
            calls.append(call_text(item["name"], item["arguments"]))
            continue
        if text is not None or calls:
            yield Message("assistant", reply_text(text or "", calls))
            text, calls = None, []
        if item["type"] == "function_call_output":
            yield Message("tool", result_text(_text_of(item["output"])))
        elif item["role"] == "assistant":
            text = _text_of(item["content"])
        else:
            yield Message(item["role"], _text_of(item["content"]))
    if text is not None or calls:
        yield Message("assistant", reply_text(text or "", calls))


def _text_of(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["refusal" if part["type"] == "refusal" else "text"] for part in content)


def check_items(items: Iterable[Mapping[str, Any]]) -> None:
    """Check that ids are unique, that each output follows its call, and each call has an output.

    Raises:
        InvalidRequestError: They break one of these rules; in the words of the hosted API.
    """
    ids: set[str] = set()
    calls = PendingCalls()  # an output may follow its call any number of items later
    for item in items:
        if item["id"] in ids:
            raise _invalid_input(
                f"Duplicate item found with id {item['id']}. Remove duplicate items from your "
                "input and try again."
            )
        ids.add(item["id"])
        if item["type"] == "function_call":
            calls.add(item["call_id"])
        elif item["type"] == "function_call_output" and not calls.answer(item["call_id"]):
            raise _invalid_input(
                f"No tool call found for function call output with call_id {item['call_id']}."
            )
    for call_id in calls.close():
        raise _invalid_input(f"No tool output found for function call {call_id}.")


def _invalid_input(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="input")


Input = Annotated[
    list[InputItem],
    BeforeValidator(_as_items, json_schema_input_type=str | list[InputItem]),
    Field(
        min_length=1,
        description="The input of the model: a text, or messages, calls and their outputs, each "
        "in full or by its id. Only a response that continues another may do without.",
    ),
]
