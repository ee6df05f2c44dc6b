"""One training example: the messages of a conversation whose replies are learned.

Frozen values and their JSONL line. Knows nothing of files, tokens or rules: validation.py does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from emojitune.dataset.tool_format import is_result

Role = Literal["system", "developer", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` stands on assistant messages only; 0 keeps the message out of the loss."""

    role: str
    content: str
    weight: int | None = None

    def to_dict(self) -> dict[str, str | int]:
        plain: dict[str, str | int] = {"role": self.role, "content": self.content}
        return plain if self.weight is None else {**plain, "weight": self.weight}


def with_notes(messages: Sequence[Message], notes: Sequence[str]) -> tuple[Message, ...]:
    """The conversation with notes behind its system message, which is made where there is none."""
    if not notes:
        return tuple(messages)
    if messages and messages[0].role in ("system", "developer"):
        first, *rest = messages
        return (replace(first, content="\n\n".join([first.content, *notes])), *rest)
    return (Message("system", "\n\n".join(notes)), *messages)


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A conversation that ends with the assistant's reply.

    Calls of tools, and what came of them, are text of their messages: see `tools.py`.

    Attributes:
        tools_prompt: What is said of the tools at hand; "" without any.
    """

    messages: tuple[Message, ...]
    tools_prompt: str = ""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """All that a model sees of it."""
        return with_notes(self.messages, [self.tools_prompt] if self.tools_prompt else [])

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything that a model sees before the reply."""
        return self.conversation[:-1]

    @property
    def reply(self) -> str:
        """What the assistant says last."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """What the user said last; empty when no user speaks."""
        said = (m.content for m in reversed(self.messages[:-1]) if m.role == "user")
        return next((text for text in said if not is_result(text)), "")

    @property
    def trained_replies(self) -> tuple[str, ...]:
        """Every assistant message that counts in the loss."""
        return tuple(m.content for m in self.messages if m.role == "assistant" and m.weight != 0)

    def to_json(self) -> str:
        """The example as one JSONL line, without the line end; tools are plain text in it."""
        messages = [message.to_dict() for message in self.conversation]
        return json.dumps({"messages": messages}, ensure_ascii=False)
