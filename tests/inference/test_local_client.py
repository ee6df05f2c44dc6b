"""Blocking requests to an adapter folder, without a server."""

from pathlib import Path

import pytest
from tiny_model import make_adapter

from emojitune.dataset.example import Message
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.faults import RequestFault
from emojitune.inference.local_client import LocalClient, open_adapter
from emojitune.inference.types import InferenceRequest
from emojitune.models import adapter
from emojitune.settings import Settings

LABELS = ("(party)", "(yawn)")
HELLO = (Message("user", "hello"),)


@pytest.fixture
def client(tiny_base: Path, tmp_path: Path) -> LocalClient:
    folder = make_adapter(tiny_base, tmp_path / "adapter", 1, LABELS)
    tensors = adapter.read(folder)[1]
    adapter.write(folder, tensors, adapter.AdapterInfo(str(tiny_base), 4, 8.0, LABELS))
    return open_adapter(folder, Settings(device="cpu", dtype="float32"))


def test_every_reply_is_complete(client: LocalClient) -> None:
    assert client.vocabulary == LABELS
    sampling = SamplingParams(n=3, seed=1)
    replies = client.ask(InferenceRequest(HELLO, sampling, decoding="labels", alternatives=2))
    assert len(replies) == 3
    for deltas in replies:
        assert "".join(delta.text for delta in deltas) in LABELS
        assert deltas[-1].finish_reason == "stop"
        assert {one.content for one in deltas[-1].alternatives} == set(LABELS)


def test_an_error_reaches_the_caller(client: LocalClient) -> None:
    with pytest.raises(RequestFault, match="tokens"):
        client.ask(InferenceRequest((Message("user", "long " * 500),)))
