"""Requests to a chat model, and its replies, gathered."""

import queue
from dataclasses import fields
from typing import Any

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.types import Delta, InferenceRequest, Usage

USER = Message("user", "What is going on?")
LABELS = ("(devil)", "(dog)", "(party)", "(yawn)", "(yawningface)")


def request_for(*messages: Message, **values: Any) -> InferenceRequest:
    """A request to continue USER or these messages; sampling parameters stand beside its fields."""
    names = {field.name for field in fields(SamplingParams)}
    sampling = {name: value for name, value in values.items() if name in names}
    others = {name: value for name, value in values.items() if name not in names}
    return InferenceRequest(messages or (USER,), SamplingParams(**sampling), **others)


def ask(model: ChatModel, request: InferenceRequest) -> tuple[list[list[Delta]], Usage]:
    """The deltas of each reply, and the usage."""
    events: queue.Queue[Delta | Usage | EmojituneError] = queue.Queue()
    model.start(request, events.put)
    replies: list[list[Delta]] = [[] for _ in range(request.sampling.n)]
    while True:
        item = events.get(timeout=10)
        match item:
            case Delta():
                replies[item.index].append(item)
            case Usage():
                return replies, item
            case EmojituneError():
                raise item


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
