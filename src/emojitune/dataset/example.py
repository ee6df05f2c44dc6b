"""Training examples: conversations whose replies are learned, as frozen values.

Knows no files, tokens or rules.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from emojitune.dataset.tool_format import is_tool_result

Role = Literal["system", "developer", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Only assistant messages have a `weight`; 0 keeps one out of the loss."""

    role: str
    content: str
    weight: int | None = None

    def to_dict(self) -> dict[str, str | int]:
        """JSON of the message, without a weight where it has none."""
        message: dict[str, str | int] = {"role": self.role, "content": self.content}
        return message if self.weight is None else {**message, "weight": self.weight}


def add_to_system(messages: Sequence[Message], notes: Sequence[str]) -> tuple[Message, ...]:
    """Append notes to the system message of a conversation, or begin it with a new one."""
    if not notes:
        return tuple(messages)
    if messages and messages[0].role in ("system", "developer"):
        first, *others = messages
        return (replace(first, content="\n\n".join([first.content, *notes])), *others)
    return (Message("system", "\n\n".join(notes)), *messages)


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A conversation that ends with the assistant's reply.

    Tool calls and their results are text of their messages: see `tool_format.py`.

    Attributes:
        tools_prompt: Describes the tools to the model; "" without any.
    """

    messages: tuple[Message, ...]
    tools_prompt: str = ""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All messages as a model sees them."""
        return add_to_system(self.messages, [self.tools_prompt] if self.tools_prompt else [])

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the reply."""
        return self.conversation[:-1]

    @property
    def reply(self) -> str:
        """Text of the last message, which is the assistant's."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """Text of the last message from the user; "" without any."""
        texts = (m.content for m in reversed(self.messages[:-1]) if m.role == "user")
        return next((text for text in texts if not is_tool_result(text)), "")

    @property
    def trained_replies(self) -> tuple[str, ...]:
        """Texts of the assistant messages that count in the loss."""
        return tuple(m.content for m in self.messages if m.role == "assistant" and m.weight != 0)

    def to_json(self) -> str:
        """The example as one JSONL line, without the line end; tools are text in it."""
        messages = [message.to_dict() for message in self.conversation]
        return json.dumps({"messages": messages}, ensure_ascii=False)
