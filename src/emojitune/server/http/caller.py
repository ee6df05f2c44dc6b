"""The caller of a request: the project that it acts for, and the key that it came with."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """The project of a request, and the id of its key: None for requests from inside the server.

    Middleware and endpoints find it in the ASGI scope, as `scope["caller"]`.
    """

    project: str
    key_id: str | None = None
