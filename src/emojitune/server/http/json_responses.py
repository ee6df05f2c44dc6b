"""Responses: objects of `openai.types` as JSON.

Every object is built in full by its endpoint, so the keys that were set are the keys that are sent:
`null` where the endpoint set it, and no key that it left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Response
from pydantic import BaseModel
from pydantic_core import to_json

JsonObject = BaseModel | Mapping[str, Any]


def json_response(item: JsonObject) -> Response:
    """A response that is one object."""
    # Exactly this media type: OpenAI's node client hands back the body of any other as raw text.
    return Response(encode_json(_payload(item)), media_type="application/json")


def list_response(items: Sequence[JsonObject], **fields: Any) -> Response:
    """A response that is a list of objects, with further `fields` of it such as `has_more`."""
    return json_response({"object": "list", "data": [_payload(item) for item in items], **fields})


def page_response(
    items: Sequence[JsonObject], *, has_more: bool, empty_id: str | None = ""
) -> Response:
    """A response that is one page of a list, with the ids of its first and its last item.

    Args:
        empty_id: Both ids of an empty page. OpenAI's document has a string almost everywhere.
    """
    data = [_payload(item) for item in items]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (empty_id, empty_id)
    return list_response(data, has_more=has_more, first_id=first, last_id=last)


def as_dict(item: BaseModel) -> dict[str, Any]:
    """The JSON of an object: the keys that were set, under their names in the API."""
    return item.model_dump(by_alias=True, exclude_unset=True)


def encode_json(payload: Mapping[str, Any]) -> bytes:
    """JSON that every client reads: NaN and infinity, which JSON does not have, become null."""
    return to_json(payload, inf_nan_mode="null")


def _payload(item: JsonObject) -> Mapping[str, Any]:
    return as_dict(item) if isinstance(item, BaseModel) else item
