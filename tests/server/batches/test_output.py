import json

import pytest

from emojitune.server.batches.input import BatchRequest
from emojitune.server.batches.output import response_result
from emojitune.server.http.asgi_client import AsgiResponse
from emojitune.store.batches import TokenUsage

REQUEST = BatchRequest(custom_id="a", method="POST", url="/v1/x", body={})


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
          "prompt_tokens_details": {"cached_tokens": 4},
          "completion_tokens_details": {"reasoning_tokens": 1}}, TokenUsage(9, 4, 2, 1)),
        ({"input_tokens": 9, "output_tokens": 2, "total_tokens": 11,
          "input_tokens_details": {"cached_tokens": 4},
          "output_tokens_details": {"reasoning_tokens": 1}}, TokenUsage(9, 4, 2, 1)),
        ({"prompt_tokens": 9, "total_tokens": 9}, TokenUsage(9, 0, 0, 0)),
        (None, TokenUsage()),
    ],
    ids=["chat", "responses", "embeddings", "none"],
)  # fmt: skip
def test_the_usage_of_every_endpoint_is_counted(usage: object, expected: TokenUsage) -> None:
    answer = AsgiResponse(200, {"x-request-id": "req_1"}, json.dumps({"usage": usage}).encode())
    assert response_result(7, REQUEST, answer).usage == expected
