"""Which failures are waited out, and for how long."""

from collections.abc import Callable, Iterator

import httpx2
import openai
import pytest

from emojitune.errors import ProviderError
from emojitune.workflow.rescue.patience import LONGEST_WAIT, CutError, Patience, retry_after


def refusal(status: int, code: str | None = None, **headers: str) -> openai.APIStatusError:
    request = httpx2.Request("GET", "http://127.0.0.1/v1/files")
    response = httpx2.Response(status, headers=headers, request=request)
    return openai.APIStatusError("no", response=response, body={"code": code})


def answers(*failures: Exception) -> Callable[[], str]:
    left: Iterator[Exception] = iter(failures)

    def send() -> str:
        for failure in left:
            raise failure
        return "answer"

    return send


def patient(waits: list[float]) -> Patience:
    return Patience(lambda text: None, waits.append, lambda: 1000.0)


def test_it_waits_as_long_as_the_provider_asks() -> None:
    waits: list[float] = []
    failures = (
        refusal(429, **{"retry-after": "90"}),
        refusal(503, **{"retry-after-ms": "250"}),
        refusal(500),
        CutError("cut"),
    )
    assert patient(waits).request(answers(*failures)) == "answer"
    assert waits == [90, 0.25, 4, 8]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10),
        ("1e9", LONGEST_WAIT),
        ("-3", 0),
        ("nan", None),
        ("soon", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(refusal(429, **{"retry-after": text}), 1000.0) == seconds


@pytest.mark.parametrize(
    "final",
    [
        refusal(404),
        refusal(400),
        refusal(429, "insufficient_quota"),
        refusal(500, **{"x-should-retry": "false"}),
    ],
)
def test_what_would_only_repeat_is_not_asked_again(final: openai.APIStatusError) -> None:
    waits: list[float] = []
    with pytest.raises(openai.APIStatusError):
        patient(waits).request(answers(final))
    assert waits == []


def test_one_object_may_be_broken_but_a_provider_that_is_down_ends_it() -> None:
    patience = patient([])
    broken = [refusal(500)] * 100
    for _ in range(2):
        with pytest.raises(openai.APIStatusError):
            patience.request(answers(*broken))
    assert patience.request(answers()) == "answer"
    for _ in range(2):
        with pytest.raises(openai.APIStatusError):
            patience.request(answers(*broken))
    with pytest.raises(ProviderError, match="goes on answering 500"):
        patience.request(answers(*broken))


def test_a_connection_that_does_not_come_back_ends_it() -> None:
    with pytest.raises(ProviderError, match="run the same command again"):
        patient([]).request(answers(*[CutError("cut")] * 100))
