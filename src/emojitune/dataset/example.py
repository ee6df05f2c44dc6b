"""One training example: the messages of a conversation whose replies are learned.

Frozen values and their JSONL line. Knows nothing of files, tokens or rules: validation.py does.
"""

import json
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A conversation that ends with the assistant's reply."""

    messages: tuple[Message, ...]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the reply."""
        return self.messages[:-1]

    @property
    def reply(self) -> str:
        """What the assistant says last."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """What the user said last; empty when no user speaks."""
        said = (message.content for message in reversed(self.prompt) if message.role == "user")
        return next(said, "")

    @property
    def trained_replies(self) -> tuple[str, ...]:
        """Every assistant message that counts in the loss."""
        return tuple(m.content for m in self.messages if m.role == "assistant" and m.weight != 0)

    def to_json(self) -> str:
        """The example as one JSONL line, without the line end."""
        messages = [message.to_dict() for message in self.messages]
        return json.dumps({"messages": messages}, ensure_ascii=False)
