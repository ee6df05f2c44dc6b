"""Idempotency: a POST that creates an object is carried out once, however often it is retried.

The rule is in `store/idempotency.py`. HTTP adds the headers with the retry count and the key, and
whether the client is still connected to receive the response.
"""

import hashlib
from collections.abc import Callable

from anyio import to_thread
from fastapi import Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from emojitune.errors import EmojituneError, InvalidRequestError
from emojitune.server.context import RequestContext
from emojitune.store.idempotency import Attempt
from emojitune.store.ids import new_id

_MAX_KEY_CHARS = 255


async def create_once(
    request: Request,
    digest: str,
    context: RequestContext,
    prefix: str,
    create: Callable[[str], Response],
) -> Response:
    """The response of `create(id)`, with the id that an earlier attempt of the same request had.

    Args:
        digest: The digest of the body; see `body_digest`.
        prefix: The prefix of ids of this kind.
        create: Runs in a thread. It must create an object of the given id, or return the existing
            one.
    """
    attempt = _attempt(request, digest)

    def run() -> tuple[str, Response]:
        reserved = context.stores.idempotency.reserve(attempt, lambda: new_id(prefix))
        try:
            response = create(reserved.resource_id)
        except EmojituneError:
            context.stores.idempotency.forget(reserved.resource_id)
            raise
        if reserved.repeated:
            response.headers["idempotent-replayed"] = "true"
        return reserved.resource_id, response

    resource_id, response = await to_thread.run_sync(run)
    if not await request.is_disconnected():
        await to_thread.run_sync(context.stores.idempotency.mark_answered, resource_id)
    return response


def body_digest(body: BaseModel) -> str:
    """A digest, equal for all spellings of a body: key order, white space, null or absent."""
    return hashlib.sha256(to_json(body.model_dump(mode="json"))).hexdigest()


def _attempt(request: Request, digest: str) -> Attempt:
    key = request.headers.get("idempotency-key") or None
    if key is not None and len(key) > _MAX_KEY_CHARS:
        raise InvalidRequestError(
            f"An Idempotency-Key may have at most {_MAX_KEY_CHARS} characters, and this one has "
            f"{len(key)}."
        )
    return Attempt(request.url.path, digest, retry_count(request), key)


def retry_count(request: Request) -> int:
    """The number of earlier attempts, as official clients count them; 0 if it is not a number."""
    count = request.headers.get("x-stainless-retry-count", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 4 else 0
