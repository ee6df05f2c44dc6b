"""`emojitune chat`: one reply per message."""

from collections.abc import Iterable

from emojitune.cli.render import Screen
from emojitune.errors import InvalidRequestError
from emojitune.labels import SYSTEM_PROMPT
from emojitune.workflow import fine_tune
from emojitune.workflow.provider import Connection, provider_errors


def chat(
    connection: Connection,
    model: str,
    messages: Iterable[str],
    *,
    system: str | None,
    free: bool,
    screen: Screen,
) -> None:
    """Print the reply to each message that is not empty.

    Raises:
        InvalidRequestError: All messages are empty.
    """
    with provider_errors():
        # First of all, so that a wrong name is reported before any message is read.
        model_object = connection.client.models.retrieve(model)
    if system is None:  # only emojitune returns the system prompt that a model was trained with
        trained_with: str | None = (model_object.model_extra or {}).get("system_prompt")
        system = SYSTEM_PROMPT if trained_with is None else trained_with
    text = ""
    for text in filter(None, messages):
        reply = fine_tune.chat(
            connection.client,
            model,
            text,
            system=system,
            decoding="free" if free else None,
        )
        screen.reply(reply)
    if not text:
        raise InvalidRequestError(
            "There is no message to reply to. Give a message after the model's name, or "
            "one on each line of standard input."
        )
