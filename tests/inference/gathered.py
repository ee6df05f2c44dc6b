"""A chat model's replies, gathered."""

import queue

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.types import ChatParameters, Delta, Usage

USER = Message("user", "What is going on?")


LABELS = ("(devil)", "(dog)", "(party)", "(yawn)", "(yawningface)")


def ask(model: ChatModel, parameters: ChatParameters) -> tuple[list[list[Delta]], Usage]:
    """The deltas of each reply, and the usage."""
    heard: queue.Queue[Delta | Usage | EmojituneError] = queue.Queue()
    model.start([USER], parameters, heard.put)
    replies: list[list[Delta]] = [[] for _ in range(parameters.n)]
    while True:
        item = heard.get(timeout=10)
        match item:
            case Delta():
                replies[item.index].append(item)
            case Usage():
                return replies, item
            case EmojituneError():
                raise item


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
