"""Authentication: a request comes with the server's own key, with a project's key, or is refused.

The server's own key belongs to the default project; this module also reads or creates it.
"""

import hmac
import os
from pathlib import Path

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from emojitune.disk import open_private
from emojitune.errors import ConfigurationError
from emojitune.server.http.caller import Caller
from emojitune.server.http.errors import AuthenticationError, error_response
from emojitune.settings import Settings, read_key_file
from emojitune.store.database import make_home
from emojitune.store.keys import KeyStore, digest_of, new_secret
from emojitune.store.scope import DEFAULT_PROJECT

_PUBLIC_PATHS = frozenset({"/healthz", "/docs", "/openapi.json"})
_KEY_SOURCES = (
    "This server takes the key that it was started with (--api-key or EMOJITUNE_API_KEY), else the "
    "one in the file api_key of its home folder, and those made by `emojitune keys create`."
)

# The id of the server's own key in the log and in the rate limits.
SERVER_KEY_ID = "server"


def server_key(settings: Settings) -> str:
    """The key from the settings, or else the one in the home folder, created at the first start.

    Raises:
        ConfigurationError: The key in the home folder is one that no client could send.
    """
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.home / "api_key"
    if not (path.exists() and path.read_bytes().strip()):
        _write_secret(path, new_secret())
    try:
        return read_key_file(path)
    except ValueError as error:
        raise ConfigurationError(
            f"{error}. Or remove the file: the server then makes a new key.", param="api_key"
        ) from None


class ApiKeyMiddleware:
    """ASGI middleware: past it every request has a `caller`, except on the public paths."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._server_key_digest = digest_of(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needs_key = scope["type"] == "http" and scope["path"] not in _PUBLIC_PATHS
        if needs_key and "caller" not in scope:
            try:
                scope["caller"] = await self._caller(scope)
            except AuthenticationError as error:
                await error_response(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        secret = _bearer_token(Headers(scope=scope).get("authorization", ""))
        # Digests, so that the time of a comparison does not depend on where the two keys differ.
        if hmac.compare_digest(digest_of(secret), self._server_key_digest):
            return Caller(DEFAULT_PROJECT, SERVER_KEY_ID)
        keys: KeyStore = scope["app"].state.keys
        key = await to_thread.run_sync(keys.find, secret)
        if key is None:  # the message does not repeat the wrong key
            raise AuthenticationError(
                f"Incorrect API key provided. {_KEY_SOURCES}", code="invalid_api_key"
            )
        return Caller(key.project, key.id)


def _bearer_token(authorization: str) -> str:
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise AuthenticationError(
            "You didn't provide an API key. Send it in an Authorization header, as "
            f"`Authorization: Bearer YOUR_KEY`. {_KEY_SOURCES}"
        )
    return secret.strip()


def _write_secret(path: Path, secret: str) -> None:
    """Write a file that only its owner may read, and that nobody ever sees half written."""
    make_home(path.parent)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    with open_private(temporary, "x") as file:
        file.write(secret + "\n")
    os.replace(temporary, path)
