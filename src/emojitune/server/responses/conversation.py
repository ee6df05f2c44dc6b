"""The conversation that a response continues, of its request and of stored responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.example import Message
from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.server.responses.items import ItemReference, Reasoning, check_items, to_messages
from emojitune.server.responses.request import ResponsePrompt
from emojitune.store.responses import ResponseStore

Items = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The conversation that a response continues.

    Attributes:
        items: All items, the oldest first.
        new: The items that no earlier response has.
        instructions: A system message before the items.
    """

    items: Items
    new: Items
    instructions: str | None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the model reads it."""
        first = () if self.instructions is None else (Message("system", self.instructions),)
        return (*first, *to_messages(self.items))

    @property
    def mentions_json(self) -> bool:
        """Whether a message contains the word."""
        return any("json" in message.content.lower() for message in self.messages)


def read_conversation(body: ResponsePrompt, responses: ResponseStore) -> Conversation:
    """Read the conversation of a request.

    Raises:
        InvalidRequestError: Something that it refers to is not stored, or its items do not
            fit together.
    """
    stored = _referenced(body, responses)
    given = [
        stored[item.id] if isinstance(item, ItemReference) else item.to_item()
        for item in body.input
        if not isinstance(item, Reasoning)
    ]
    items = [*_history(body, responses), *given]
    check_items(items)
    new = [item for item in given if item["id"] not in stored]
    conversation = Conversation(items, new, body.instructions)
    if body.text.format.type == "json_object" and not conversation.mentions_json:
        raise InvalidRequestError(
            "Response input messages must contain the word 'json' in some form to use "
            "'text.format' of type 'json_object'.",
            param="input",
        )
    return conversation


def _referenced(body: ResponsePrompt, responses: ResponseStore) -> Mapping[str, Mapping[str, Any]]:
    """Look up the stored items that the input refers to; return them by their ids."""
    ids = [item.id for item in body.input if isinstance(item, ItemReference)]
    return responses.items(ids) if ids else {}


def _history(body: ResponsePrompt, responses: ResponseStore) -> Items:
    """Return the items up to the previous response and its output, without its instructions."""
    if body.previous_response_id is None:
        return ()
    try:
        previous = responses.get(body.previous_response_id)
    except NotFoundError:
        raise InvalidRequestError(
            f"Previous response with id '{body.previous_response_id}' not found.",
            code="previous_response_not_found",
            param="previous_response_id",
        ) from None
    return [*previous.input_items, *previous.response["output"]]
