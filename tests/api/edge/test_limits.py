"""Rate limits of a key, and the responses beyond them."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from fakes import FakeChatModel, FakeDispatcher
from openai import OpenAI, RateLimitError
from response_checks import error_of
from servers import KEY, RunningServer, serving

from emojitune.server.app import create_app
from emojitune.server.edge.rate_limits import MAX_HEADERS
from emojitune.settings import Settings

A_MINUTE = 120  # requests, of which two are refilled per second
BYTES = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder: Path = tmp_path_factory.mktemp("limits")
    settings = Settings(
        home=folder / "home",
        cache=folder / "cache",
        api_key=KEY,
        requests_per_minute=A_MINUTE,
        bytes_per_minute=BYTES,
        concurrent_requests=3,
    )
    dispatcher, chat_model = FakeDispatcher(), FakeChatModel()
    app = create_app(settings, dispatcher=dispatcher, load_model=lambda *_: chat_model)
    with serving(app) as url:
        yield RunningServer(url, app, dispatcher, chat_model)


@pytest.fixture
def secret(server: RunningServer) -> str:
    """An unused key."""
    made: str = server.app.state.keys.create("team")[1]
    return made


@pytest.fixture
def limited(server: RunningServer, secret: str) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=60) as opened:
        yield opened


def exhaust(client: httpx2.Client) -> httpx2.Response:
    """Send requests until one is refused."""
    for _ in range(2 * A_MINUTE):
        response = client.get("/batches")
        if response.status_code != 200:
            return response
    raise AssertionError("nobody is refused")


def test_too_many_requests_are_refused_in_openais_words(limited: httpx2.Client) -> None:
    response = exhaust(limited)
    assert response.status_code == 429
    error = error_of(response)
    assert (error["type"], error["code"], error["param"]) == (
        "requests", "rate_limit_exceeded", None
    )  # fmt: skip
    assert error["message"].startswith("Rate limit reached for key_")
    assert "on requests per min (RPM): Limit 120, Used 1" in error["message"]
    assert "Requested 1. Please try again in" in error["message"]
    assert response.headers["retry-after"] == "1"
    assert 0 < int(response.headers["retry-after-ms"]) <= 500
    assert response.headers["x-ratelimit-limit-requests"] == "120"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    assert response.headers["x-ratelimit-reset-requests"].startswith(("59.", "1m0s", "60s"))


def test_the_official_client_waits_and_succeeds(server: RunningServer, secret: str) -> None:
    with OpenAI(base_url=server.url, api_key=secret, max_retries=0) as impatient:
        with pytest.raises(RateLimitError) as caught:
            [impatient.batches.list() for _ in range(2 * A_MINUTE)]
        assert caught.value.code == "rate_limit_exceeded"
        patient = impatient.with_options(max_retries=2)
        answers = [patient.batches.with_raw_response.list() for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sum(answer.retries_taken for answer in answers) >= 1


def test_every_response_has_the_remaining_allowance(limited: httpx2.Client) -> None:
    first = limited.get("/models").headers
    sent = limited.post("/fine_tuning/jobs", content=b" " * 50_000).headers
    assert first["x-ratelimit-remaining-requests"] == "119"
    assert int(first["x-ratelimit-remaining-bytes"]) == BYTES
    assert first["x-ratelimit-limit-bytes"] == str(BYTES)
    assert BYTES - 50_000 <= int(sent["x-ratelimit-remaining-bytes"]) < BYTES
    assert sent["x-ratelimit-reset-bytes"].endswith("s")


def test_one_large_request_is_admitted_and_paid_for(limited: httpx2.Client) -> None:
    file = {"file": b"x" * (BYTES + 50_000)}
    made = limited.post("/files", files=file, data={"purpose": "user_data"})
    assert made.status_code == 200
    assert made.headers["x-ratelimit-remaining-bytes"] == "0"
    refused = limited.get("/files")
    assert refused.status_code == 429
    error = error_of(refused)
    assert error["type"] == "bytes"
    assert "on bytes per min (BPM): Limit 200000" in error["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 20


def test_keys_have_separate_limits_and_the_servers_own_key_has_none(
    server: RunningServer, limited: httpx2.Client, http: httpx2.Client
) -> None:
    exhaust(limited)
    _, other = server.app.state.keys.create("team")
    headers = {"Authorization": f"Bearer {other}"}
    assert httpx2.get(f"{server.url}/batches", headers=headers).status_code == 200
    answers = [http.get("/batches") for _ in range(A_MINUTE + 30)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any(name.startswith("x-ratelimit") for name in answers[-1].headers)


@pytest.mark.parametrize("own", [True, False])
def test_concurrent_streams_are_bounded(
    server: RunningServer, limited: httpx2.Client, http: httpx2.Client, own: bool
) -> None:
    client = http if own else limited
    body = {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "go on for ever"}],
        "stream": True,
    }
    begun, end = threading.Barrier(4), threading.Event()

    def hold() -> None:
        with client.stream("POST", "/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert next(lines)
            begun.wait(10)
            end.wait(10)

    holding = [threading.Thread(target=hold) for _ in range(3)]
    for thread in holding:
        thread.start()
    begun.wait(10)
    response = client.get("/models")
    assert response.status_code == 429
    error = error_of(response)
    assert "on requests at the same time: Limit 3." in error["message"]
    assert response.headers["retry-after"] == "1"
    end.set()
    for thread in holding:
        thread.join()
    deadline = time.monotonic() + 10
    while client.get("/models").status_code != 200:
        assert time.monotonic() < deadline, "who has left is counted still"
        time.sleep(0.05)


def test_too_many_headers_are_a_431(http: httpx2.Client) -> None:
    few = {f"x-{number}": "1" for number in range(MAX_HEADERS - 20)}
    assert http.get("/models", headers=few).status_code == 200
    many = {f"x-{number}": "1" for number in range(MAX_HEADERS + 1)}
    response = http.get("/models", headers=many)
    assert response.status_code == 431
    assert "at most 100 headers" in error_of(response)["message"]


def test_oversized_headers_are_refused(server: RunningServer, http: httpx2.Client) -> None:
    headers = {"x-long": "x" * 200_000}
    with suppress(httpx2.ReadError, httpx2.WriteError):  # closed before all of it was sent
        assert httpx2.get(f"{server.url}/models", headers=headers).status_code == 400
    assert http.get("/models").status_code == 200


@pytest.mark.parametrize("depth", [100, 190, 250, 5000])
def test_deeply_nested_json_is_no_server_error(http: httpx2.Client, depth: int) -> None:
    schema = '{"items":' * depth + "{}" + "}" * depth
    tool = '{"type": "function", "function": {"name": "f", "parameters": ' + schema + "}}"
    fields = '"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "hi"}]'
    body = f'{{{fields}, "tools": [{tool}]}}'
    response = http.post("/chat/completions", content=body)
    if depth > 200:
        assert error_of(response)["message"].startswith("We could not parse the JSON body")
    assert response.status_code == (200 if depth < 200 else 400)


def test_no_response_allows_other_origins(http: httpx2.Client) -> None:
    """Without these headers a browser withholds the response from pages of other origins."""
    origin = {"origin": "https://evil.example"}
    preflight = {
        **origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    for response in (
        http.get("/models", headers=origin),
        http.post("/chat/completions", headers=origin, json={}),
        http.options("/chat/completions", headers=preflight),
        http.options("/models", headers=preflight),
    ):
        assert not any(name.startswith("access-control") for name in response.headers)
    assert http.options("/models", headers=preflight).status_code >= 400
