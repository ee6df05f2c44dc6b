"""uvicorn's HTTP/1.1 connection, which refuses malformed HTTP with OpenAI's error object.

Such a request never reaches the application. Knows nothing about the content of requests.
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
        """Refuse a malformed request and close the connection: no later byte can be trusted."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else a response has begun
            for event in _bad_request_events():
                self.transport.write(self.conn.send(event) or b"")
            if self.cycle is not None:  # the application may have the headers, and respond too
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
