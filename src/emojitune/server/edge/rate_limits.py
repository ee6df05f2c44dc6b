"""Rate limits of each key: requests and bytes per minute, and concurrent requests.

They protect the holders of keys from one another, and everybody from a runaway program. The
server's own key has no limits per minute: its owner would only limit himself. Usage is counted in
memory, from zero at each start.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emojitune.errors import InvalidRequestError
from emojitune.server.edge.auth import SERVER_KEY_ID
from emojitune.server.http.caller import Caller
from emojitune.server.http.errors import RateLimitError, error_response
from emojitune.settings import Settings

MAX_HEADERS = 100


class TokenBucket:
    """A token bucket: `limit` units a minute, refilled at a constant rate; 0 is no limit.

    It may be overdrawn: a request is admitted before its size is known, and paid for afterwards.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._available = float(limit)
        self._refilled_at = clock()

    @property
    def available(self) -> float:
        """The units available now; negative when overdrawn."""
        clock = self._clock()
        refill = (clock - self._refilled_at) * self.limit / 60
        self._available, self._refilled_at = min(self.limit, self._available + refill), clock
        return self._available

    def take(self, units: float) -> None:
        self._available = self.available - units

    def seconds_until(self, units: float) -> float:
        """The time until `units` are available; 0 when they are."""
        return max(0.0, (units - self.available) * 60 / self.limit) if self.limit else 0.0


@dataclass(slots=True)
class _KeyUsage:
    """The usage of one key."""

    requests: TokenBucket
    bytes: TokenBucket
    in_flight: int = 0

    def limited(self) -> Iterator[tuple[str, TokenBucket]]:
        """The buckets that have a limit, by their names in headers."""
        pairs = (("requests", self.requests), ("bytes", self.bytes))
        return ((name, bucket) for name, bucket in pairs if bucket.limit)


class RateLimitMiddleware:
    """ASGI middleware inside the API key's. A batch's requests are free: its file was counted."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._usage: dict[str, _KeyUsage] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller | None = scope.get("caller")
        if caller is None or caller.key_id is None:
            await self._app(scope, receive, send)
            return
        usage = self._usage_of(caller.key_id)

        async def receive_and_count() -> Message:
            message = await receive()
            usage.bytes.take(len(message.get("body", b"")))
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _set_headers(usage, MutableHeaders(scope=message))
            await send(message)

        refusal = self._refusal(caller, usage)
        if refusal is not None:
            await error_response(refusal)(scope, receive, send_with_headers)
            return
        usage.requests.take(1)
        usage.in_flight += 1
        try:
            await self._app(scope, receive_and_count, send_with_headers)
        finally:
            usage.in_flight -= 1

    def _usage_of(self, key_id: str) -> _KeyUsage:
        if key_id not in self._usage:
            is_server_key, settings = key_id == SERVER_KEY_ID, self._settings
            requests = TokenBucket(0 if is_server_key else settings.requests_per_minute)
            self._usage[key_id] = _KeyUsage(
                requests, TokenBucket(0 if is_server_key else settings.bytes_per_minute)
            )
        return self._usage[key_id]

    def _refusal(self, caller: Caller, usage: _KeyUsage) -> RateLimitError | None:
        limit = self._settings.concurrent_requests
        reached = f"Rate limit reached for {caller.key_id} in project {caller.project}"
        if usage.in_flight >= limit:
            message = (
                f"{reached} on requests at the same time: Limit {limit}. Please try again in 1s."
            )
            return RateLimitError(message, unit="requests", retry_after=1.0)
        requests, bytes_ = usage.requests, usage.bytes
        if wait := requests.seconds_until(1):
            used = requests.limit - math.floor(requests.available)
            message = (
                f"{reached} on requests per min (RPM): Limit {requests.limit}, Used {used}, "
                f"Requested 1. Please try again in {format_duration(wait)}."
            )
            return RateLimitError(message, unit="requests", retry_after=wait)
        if wait := bytes_.seconds_until(1):
            used = bytes_.limit - math.floor(bytes_.available)
            message = (
                f"{reached} on bytes per min (BPM): Limit {bytes_.limit}, Used {used}. "
                f"Please try again in {format_duration(wait)}."
            )
            return RateLimitError(message, unit="bytes", retry_after=wait)
        return None


class HeaderLimitMiddleware:
    """ASGI middleware that bounds the number of headers; uvicorn bounds their bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope["headers"]) > MAX_HEADERS:
            error = InvalidRequestError(
                f"A request may have at most {MAX_HEADERS} headers, and this one has "
                f"{len(scope['headers'])}."
            )
            await error_response(error, 431)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def format_duration(seconds: float) -> str:
    """A duration as OpenAI formats it: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, remainder = divmod(seconds, 60)
    return f"{minutes:.0f}m{remainder:.0f}s" if minutes else f"{remainder:.3g}s"


def _set_headers(usage: _KeyUsage, headers: MutableHeaders) -> None:
    for name, bucket in usage.limited():
        headers[f"x-ratelimit-limit-{name}"] = str(bucket.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(max(0, math.floor(bucket.available)))
        headers[f"x-ratelimit-reset-{name}"] = format_duration(bucket.seconds_until(bucket.limit))
