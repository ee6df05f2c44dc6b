"""Replies: objects of `openai.types` as JSON.

Every object is built whole by its endpoint, so the keys that were set are the keys that are sent:
`null` where it says so, and no key that the endpoint left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel
from pydantic_core import to_json


def json_response(item: BaseModel | Mapping[str, Any]) -> Response:
    """One object, of a type of OpenAI's or as a dict already."""
    payload = as_dict(item) if isinstance(item, BaseModel) else item
    # Nothing but this very type: OpenAI's node client hands back any other as raw text.
    return Response(encode_json(payload), media_type="application/json")


def list_response(items: Sequence[BaseModel], **more: Any) -> Response:
    """A list of objects, with `has_more` and what else this list carries."""
    data = [as_dict(item) for item in items]
    return json_response({"object": "list", "data": data, **more})


def page_response(items: Sequence[BaseModel], ids: Sequence[str], has_more: bool) -> Response:
    """A page of a list that also names its first and last item.

    OpenAI's document has both as strings and never as null: of an empty page they are empty.
    """
    first, last = (ids[0], ids[-1]) if ids else ("", "")
    return list_response(items, has_more=has_more, first_id=first, last_id=last)


def as_dict(item: BaseModel) -> dict[str, Any]:
    """An object as it is sent: the keys that were set, under their names in the API."""
    return item.model_dump(by_alias=True, exclude_unset=True)


def encode_json(payload: Mapping[str, Any]) -> bytes:
    """JSON as every client reads it: NaN and infinity are no JSON, and become null."""
    return to_json(payload, inf_nan_mode="null")
