"""Renderer: messages to token ids and loss mask, the same for training, chat and evaluation.

The only place that knows special tokens. The model's own chat template is rendered around
placeholders, and the text of messages is tokenized apart with special tokens switched off, so
nothing that a user types can forge a turn, and every token's origin is known without guessing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.example import Message
from emojitune.errors import ConversationError, ModelError
from emojitune.models.token_bytes import TokenBytes

# Private-use characters around a message's number: no template contains them, and a template
# that trims or lower-cases its contents leaves them alone.
_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")

# Roles that not every template knows, as one that each does. What a tool answered says so itself:
# see dataset/tool_format.py.
_ROLES = {"developer": "system", "tool": "user", "function": "user"}


@dataclass(frozen=True, slots=True)
class RenderedExample:
    """One conversation as the model sees it.

    Attributes:
        ids: Token ids.
        mask: As long as `ids`; True where a token is to be learned: the text of an assistant
            message and the stop token after it.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]


class Renderer:
    """Renders messages with one tokenizer and its chat template."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                "A base model needs a chat template, and this one's tokenizer has none. "
                "Use the instruct or chat variant of the model.",
                param="model",
            )
        self._tokenizer = tokenizer
        self._bytes = TokenBytes(tokenizer)
        self.stop_ids = frozenset(stop_ids)

    def render_example(self, messages: Sequence[Message]) -> RenderedExample:
        """A whole conversation with its loss mask.

        Trained on are all assistant messages whose `weight` is not 0, each with its stop token.
        """
        ids: list[int] = []
        mask: list[bool] = []
        awaiting_stop = False
        for text, number in self._pieces(messages, add_generation_prompt=False):
            if number is None:
                piece = self._encode_scaffold(text)
                learned = self._stop_mask(piece) if awaiting_stop else [False] * len(piece)
                awaiting_stop = False
            else:
                piece = self.encode_text(text)
                awaiting_stop = messages[number].role == "assistant" and (
                    messages[number].weight != 0
                )
                learned = [awaiting_stop] * len(piece)
            ids += piece
            mask += learned
        return RenderedExample(tuple(ids), tuple(mask))

    def render_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A conversation up to the point where the assistant's next reply begins."""
        ids: list[int] = []
        for text, number in self._pieces(messages, add_generation_prompt=True):
            ids += self._encode_scaffold(text) if number is None else self.encode_text(text)
        return tuple(ids)

    def exceeds(self, characters: int, tokens: int) -> bool:
        """Whether a text of so many characters surely has more tokens than that: told without
        encoding it, which takes 250 bytes of memory a character."""
        return characters > tokens * self._bytes.longest

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text: special tokens written out in it stay ordinary characters."""
        encoded: list[int] = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        return encoded

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_bytes(self, token: int) -> tuple[str, bytes | None]:
        """The text and the bytes of one token; None where it is a special one."""
        return self._bytes.of(token)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer itself, for a grammar that needs its vocabulary."""
        return self._tokenizer

    def _pieces(
        self, messages: Sequence[Message], *, add_generation_prompt: bool
    ) -> list[tuple[str, int | None]]:
        """The template's own text (None) and the messages' texts (their number), in order."""
        turns = [
            {
                "role": _ROLES.get(message.role, message.role),
                "content": f"\ue000{number}\ue001",
            }
            for number, message in enumerate(messages)
        ]
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template may raise anything, jinja's errors among them
            raise ConversationError(
                f"The model's chat template refuses this conversation: {error} "
                "Check the order of the roles."
            ) from error
        # re.split with one group alternates: scaffold, number, scaffold, number, ..., scaffold.
        parts = _PLACEHOLDER.split(rendered)
        pieces: list[tuple[str, int | None]] = []
        for position, part in enumerate(parts):
            if position % 2:
                pieces.append((messages[int(part)].content, int(part)))
            elif part:
                pieces.append((part, None))
        return pieces

    def _encode_scaffold(self, text: str) -> list[int]:
        encoded: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded

    def _stop_mask(self, scaffold: list[int]) -> list[bool]:
        """True up to the first stop token of what follows an assistant message, if there is one."""
        stop = next((i for i, token in enumerate(scaffold) if token in self.stop_ids), -1)
        return [i <= stop for i in range(len(scaffold))]
