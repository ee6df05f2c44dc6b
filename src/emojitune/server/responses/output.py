"""The output items of a response while they are generated, and the events of each change.

An event here is its type and its fields: the assembler numbers it and makes a frame of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from emojitune.inference.types import Delta, TokenLogprob, ToolCallDelta
from emojitune.server.generation.token_logprobs import response_token_object
from emojitune.store.ids import new_id

Event = tuple[str, dict[str, Any]]
Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(slots=True)
class _Message:
    """A message with one part, of text."""

    index: int
    id: str = field(default_factory=lambda: new_id("msg_", 48))
    text: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def item(self, status: Status) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self._part()]
        return {
            "id": self.id,
            "content": content,
            "role": "assistant",
            "status": status,
            "type": "message",
        }

    def open(self) -> Iterator[Event]:
        yield _item_event("added", self, "in_progress")
        yield "response.content_part.added", {**self._place(), "part": self._part()}

    def add(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> Event:
        shown = [response_token_object(logprob) for logprob in logprobs]
        self.text.append(text)
        self.logprobs += shown
        return "response.output_text.delta", {**self._place(), "delta": text, "logprobs": shown}

    def close(self, status: Status) -> Iterator[Event]:
        part = self._part()
        content = {"text": part["text"], "logprobs": part["logprobs"]}
        yield "response.output_text.done", {**self._place(), **content}
        yield "response.content_part.done", {**self._place(), "part": part}
        yield _item_event("done", self, status)

    def _part(self) -> dict[str, Any]:
        return {
            "annotations": [],
            "text": "".join(self.text),
            "type": "output_text",
            "logprobs": list(self.logprobs),
        }

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


@dataclass(slots=True)
class _Call:
    """A call of a function."""

    index: int
    name: str
    id: str = field(default_factory=lambda: new_id("fc_", 48))
    call_id: str = field(default_factory=lambda: new_id("call_"))
    arguments: list[str] = field(default_factory=list)

    def item(self, status: Status) -> dict[str, Any]:
        return {
            "arguments": "".join(self.arguments),
            "call_id": self.call_id,
            "name": self.name,
            "type": "function_call",
            "id": self.id,
            "status": status,
        }

    def open(self) -> Iterator[Event]:
        yield _item_event("added", self, "in_progress")

    def add(self, arguments: str) -> Event:
        self.arguments.append(arguments)
        return "response.function_call_arguments.delta", {**self._place(), "delta": arguments}

    def close(self, status: Status) -> Iterator[Event]:
        called = {"name": self.name, "arguments": "".join(self.arguments)}
        yield "response.function_call_arguments.done", {**self._place(), **called}
        yield _item_event("done", self, status)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index}


class OutputItems:
    """All items of one response: only the last one may still be generated."""

    def __init__(self) -> None:
        self._items: list[_Message | _Call] = []
        self.cut_off = False

    def add(self, delta: Delta) -> Iterator[Event]:
        """Take in a delta while its events are iterated over."""
        self.cut_off = delta.finish_reason == "length"
        if delta.text or delta.logprobs:
            last = self._items[-1] if self._items else None
            if not isinstance(last, _Message):
                last = _Message(len(self._items))
                yield from self._open(last)
            yield last.add(delta.text, delta.logprobs)
        for call in delta.tool_calls:
            yield from self._add_call(call)

    def end(self) -> Iterator[Event]:
        """Close the last item; a reply of neither text nor calls is a message with empty text."""
        if not self._items:
            yield from self._open(_Message(0))
        yield from self._items[-1].close(self._last_status)

    def items(self) -> list[dict[str, Any]]:
        """Return the items of a response that has ended."""
        *complete, last = self._items
        return [*(item.item("completed") for item in complete), last.item(self._last_status)]

    @property
    def _last_status(self) -> Status:
        return "incomplete" if self.cut_off else "completed"

    def _add_call(self, delta: ToolCallDelta) -> Iterator[Event]:
        if delta.name is not None:
            yield from self._open(_Call(len(self._items), delta.name))
        call = self._items[-1]
        assert isinstance(call, _Call), "the first delta of a call has its name"
        if delta.arguments:
            yield call.add(delta.arguments)

    def _open(self, item: _Message | _Call) -> Iterator[Event]:
        if self._items:
            yield from self._items[-1].close("completed")
        self._items.append(item)
        yield from item.open()


def _item_event(what: Literal["added", "done"], item: _Message | _Call, status: Status) -> Event:
    return f"response.output_item.{what}", {"output_index": item.index, "item": item.item(status)}
