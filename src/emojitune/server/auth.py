"""The server's one key: where it comes from, and who may pass without it."""

import hmac
import os
import secrets
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from emojitune.server.errors import AuthenticationError, error_response
from emojitune.settings import Settings

_OPEN_PATHS = frozenset({"/healthz", "/docs", "/openapi.json"})
_WHERE = (
    "This server's key is the one it was started with (--api-key or EMOJITUNE_API_KEY), else the "
    "one in the file api_key of its home folder."
)


def server_key(settings: Settings) -> str:
    """The key from the settings, else the one kept in the home folder, made at the first start."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.home / "api_key"
    if not path.exists():
        _write_secret(path, f"sk-emojitune-{secrets.token_urlsafe(24)}")
    return path.read_text(encoding="utf-8").strip()


class KeyCheck:
    """ASGI middleware: nothing but the open paths is reached without the key."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN_PATHS:
            refused = self._refusal(Headers(scope=scope).get("authorization", ""))
            if refused is not None:
                await error_response(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, authorization: str) -> AuthenticationError | None:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            return AuthenticationError(
                "You didn't provide an API key. Send it in an Authorization header, as "
                f"`Authorization: Bearer YOUR_KEY`. {_WHERE}"
            )
        # Takes the same time wherever the two differ; and the wrong key is not repeated to anyone.
        if not hmac.compare_digest(given.strip().encode(), self._key):
            return AuthenticationError(
                f"Incorrect API key provided. {_WHERE}", code="invalid_api_key"
            )
        return None


def _write_secret(path: Path, secret: str) -> None:
    """Only the owner may read it, and nobody ever sees it half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secret + "\n")
    os.replace(temporary, path)
