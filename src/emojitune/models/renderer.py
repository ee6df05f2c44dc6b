"""Renderer: messages to token ids and loss mask, the same for training, chat and evaluation.

The only place that knows special tokens. The model's chat template is rendered around placeholders,
and the text of messages is tokenized separately, without special tokens: nothing that a user types
can forge a turn, and the origin of every token is certain.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.example import Message
from emojitune.errors import ConversationError, ModelError
from emojitune.models.token_bytes import TokenBytes
from emojitune.models.untrusted.limits import REFUSED
from emojitune.models.untrusted.plain import (
    has_plain_decoder,
    is_plain_template,
    is_plain_tokenizer,
    tokenizer_parts,
)
from emojitune.models.untrusted.sandbox import Sandbox

# Private-use characters around a message's number: no template contains them, and trimming or
# lower-casing the contents does not change them.
_PLACEHOLDER = re.compile("\ue000(\\d{1,9})\ue001")

# Roles that some templates lack, as one that each has. The text of a tool's result names it as one:
# see dataset/tool_format.py.
_ROLES = {"developer": "system", "tool": "user", "function": "user"}


@dataclass(frozen=True, slots=True)
class RenderedExample:
    """One conversation as token ids.

    Attributes:
        ids: Token ids, (T,).
        loss_mask: True where a token is supervised, (T,): the text of an assistant message and the
            stop token after it.
    """

    ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]


class Renderer:
    """Renders messages with one tokenizer and its chat template."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int]) -> None:
        if not tokenizer.chat_template:
            raise ModelError(
                "A base model needs a chat template, and this one's tokenizer has none. "
                "Use the instruct or chat variant of the model.",
                param="model",
            )
        backend = tokenizer.backend_tokenizer
        parts = tokenizer_parts(backend)
        if not has_plain_decoder(parts):  # replies are decoded here, between the passes of all
            raise ModelError(
                "A base model's tokenizer must decode tokens by steps of known cost, and the "
                "decoder in this one's tokenizer.json has others. Use another base model.",
                code=REFUSED,
                param="model",
            )
        self._tokenizer = tokenizer
        template, special_tokens = tokenizer.get_chat_template(), tokenizer.special_tokens_map
        self._plain_template = is_plain_template(template, special_tokens)
        self._plain_tokenizer = is_plain_tokenizer(parts)
        self._text_encoder = _encoder(backend, split_special_tokens=True)
        self._template_encoder = _encoder(backend, split_special_tokens=False)
        self._sandbox = Sandbox(
            template, special_tokens, None if self._plain_tokenizer else backend.to_str()
        )
        self._bytes = TokenBytes(tokenizer)
        self.stop_ids = frozenset(stop_ids)

    def render_example(self, messages: Sequence[Message]) -> RenderedExample:
        """An entire conversation with its loss mask.

        Supervised are all assistant messages whose `weight` is not 0, each with its stop token.

        Raises:
            ConversationError: The chat template refuses the conversation.
        """
        ids: list[int] = []
        mask: list[bool] = []
        awaiting_stop = False
        for text, number in self._segments(messages, add_generation_prompt=False):
            if number is None:
                tokens = self._encode_template(text)
                supervised = self._stop_mask(tokens) if awaiting_stop else [False] * len(tokens)
                awaiting_stop = False
            else:
                tokens = self.encode_text(text)
                awaiting_stop = messages[number].role == "assistant" and (
                    messages[number].weight != 0
                )
                supervised = [awaiting_stop] * len(tokens)
            ids += tokens
            mask += supervised
        return RenderedExample(tuple(ids), tuple(mask))

    def render_prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """A conversation's token ids up to the start of the assistant's next reply.

        Raises:
            ConversationError: The chat template refuses the conversation.
        """
        ids: list[int] = []
        for text, number in self._segments(messages, add_generation_prompt=True):
            ids += self._encode_template(text) if number is None else self.encode_text(text)
        return tuple(ids)

    def exceeds(self, characters: int, tokens: int) -> bool:
        """Whether every text of that many characters has more than that many tokens.

        Decided without encoding one, which takes 250 bytes of memory a character.
        """
        return characters > tokens * self._bytes.max_token_length

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text: special tokens spelled out in it stay ordinary characters."""
        return self._encode(text, split_special_tokens=True)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, without special tokens."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def token_bytes(self, token: int) -> tuple[str, bytes | None]:
        """The text and the bytes of one token; None for the bytes of a special one."""
        return self._bytes.lookup(token)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, for a grammar that needs its vocabulary."""
        return self._tokenizer

    def _segments(
        self, messages: Sequence[Message], *, add_generation_prompt: bool
    ) -> list[tuple[str, int | None]]:
        """The template's text (None) and the texts of messages (their numbers), in order."""
        turns = [
            {
                "role": _ROLES.get(message.role, message.role),
                "content": f"\ue000{number}\ue001",
            }
            for number, message in enumerate(messages)
        ]
        try:
            rendered = self._apply_template(turns, add_generation_prompt=add_generation_prompt)
            rendered.encode()  # half a character could not be tokenized
        except ConversationError:
            raise
        except Exception as error:  # a template may raise anything, jinja's errors among them
            raise ConversationError(
                f"The model's chat template refuses this conversation: {error} "
                "Check the order of the roles."
            ) from error
        return _split(rendered, messages)

    def _apply_template(
        self, turns: Sequence[Mapping[str, str]], *, add_generation_prompt: bool
    ) -> str:
        if not self._plain_template:
            return self._sandbox.render(
                turns,
                add_generation_prompt=add_generation_prompt,
                max_length=_max_template_length(len(turns)),
            )
        rendered: str = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        return rendered

    def _encode_template(self, text: str) -> list[int]:
        return self._encode(text, split_special_tokens=False)

    def _encode(self, text: str, *, split_special_tokens: bool) -> list[int]:
        if not self._plain_tokenizer:
            try:
                return self._sandbox.encode(text, split_special_tokens=split_special_tokens)
            except ValueError as error:
                raise ConversationError(
                    f"The model's tokenizer refuses this text: {error} Change it, or use another "
                    "model."
                ) from error
        encoder = self._text_encoder if split_special_tokens else self._template_encoder
        [encoded] = encoder.encode_batch_fast([text], add_special_tokens=False)  # without the GIL
        ids: list[int] = encoded.ids
        return ids

    def _stop_mask(self, template_ids: list[int]) -> list[bool]:
        """True up to the first stop token, if there is one, after an assistant message."""
        stop = next((i for i, token in enumerate(template_ids) if token in self.stop_ids), -1)
        return [i <= stop for i in range(len(template_ids))]


def _encoder(backend: Any, *, split_special_tokens: bool) -> Any:
    """A tokenizer with the parts of `backend`, which always or never splits special tokens.

    One whose setting is changed for each text would split another thread's text in the wrong way,
    and a change waits, with Python's lock held, until no text is being encoded.
    """
    from tokenizers import Tokenizer

    encoder = Tokenizer(backend.model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (value := getattr(backend, part)) is not None:
            setattr(encoder, part, value)
    added = backend.get_added_tokens_decoder()
    encoder.add_tokens([token for _, token in sorted(added.items())])
    assert encoder.get_added_tokens_decoder() == added, "added tokens have other ids"
    encoder.encode_special_tokens = split_special_tokens
    return encoder


def _split(rendered: str, messages: Sequence[Message]) -> list[tuple[str, int | None]]:
    """A rendered template's own text (None) and the texts of messages (their numbers), in order.

    Raises:
        ConversationError: The template adds more text than a limit, or repeats the messages.
    """
    # re.split with one group alternates: template, number, template, number, ..., template.
    parts = _PLACEHOLDER.split(rendered)
    segments: list[tuple[str, int | None]] = []
    for position, part in enumerate(parts):
        if position % 2 and int(part) < len(messages):
            segments.append((messages[int(part)].content, int(part)))
        elif part:
            segments.append((part, None))
    length = sum(len(text) for text, _ in segments)
    content_length = sum(len(message.content) for message in messages)
    limit = _max_template_length(len(messages)) + 2 * content_length
    if length > limit:
        raise ConversationError(
            f"A chat template may make at most {limit} characters of these messages of "
            f"{content_length}, and this model's makes {length}. Use another model."
        )
    return segments


def _max_template_length(messages: int) -> int:
    """Characters that a chat template may add to that many messages."""
    return 65_536 + 256 * messages
