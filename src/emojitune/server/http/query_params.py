"""Query parameters of several endpoints: cursor, size and order of a page, and metadata filters.

Each is declared once, with the description that the reference shows. Knows no endpoint.
"""

import re
from typing import Annotated, Literal

from fastapi import Query, Request
from pydantic import AfterValidator

from emojitune.server.http.json_bodies import refuse
from emojitune.store import pagination

MAX_LIMIT = 10_000

_LIMIT = "The maximum number of items on a page."
_ORDER = "Sort order by creation time; ascending is oldest first."
_METADATA_KEY = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _check_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_LIMIT:
        code = "integer_below_min_value" if limit < 1 else "integer_above_max_value"
        refuse(code, f"limit must be between 1 and {MAX_LIMIT}.")
    return limit


After = Annotated[str | None, Query(description="The id of the last item of the previous page.")]

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description=_LIMIT)]
LimitTo100 = Annotated[int, Query(ge=1, le=100, description=_LIMIT)]
# OpenAI's files endpoint has a refusal with a wording of its own.
FileLimit = Annotated[
    int,
    AfterValidator(_check_limit),
    Query(description=_LIMIT, json_schema_extra={"minimum": 1, "maximum": MAX_LIMIT}),
]

Order = Annotated[pagination.Order, Query(description=_ORDER)]
# OpenAI's permissions endpoint spells the words out.
FullOrder = Annotated[Literal["ascending", "descending"], Query(description=_ORDER)]


def metadata_filter(request: Request) -> dict[str, str]:
    """The pairs that a query requires of an object's metadata, as in `?metadata[key]=value`."""
    query = request.query_params
    return {match[1]: query[key] for key in query if (match := _METADATA_KEY.fullmatch(key))}
