"""The connection: uvicorn's HTTP/1.1, but what is no HTTP at all is refused as everything else is.

Such a request never reaches the application. Knows nothing of what HTTP carries.
"""

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from emojitune.errors import InvalidRequestError
from emojitune.server.http.errors import error_object
from emojitune.server.http.json_responses import encode_json

_MESSAGE = (
    "The request could not be read as HTTP/1.1: a line, a header or a length of it is malformed, "
    "or its headers are too large."
)


class StrictH11Protocol(H11Protocol):
    """A connection to a client."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be read, and end the connection: what follows may be anything."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer is on its way
            for event in _bad_request_events():
                self.transport.write(self.conn.send(event) or b"")
            if self.cycle is not None:  # the application may have the head, and answer too
                self.cycle.disconnected = True
        self.transport.close()


def _bad_request_events() -> tuple[h11.Event, ...]:
    body = encode_json(error_object(InvalidRequestError(_MESSAGE)))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
    return head, h11.Data(data=body), h11.EndOfMessage()
