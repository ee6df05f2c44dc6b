"""Log-probabilities of tokens in the JSON of chat completions and responses."""

from typing import Any

from emojitune.inference.types import TokenLogprob

_MIN_LOGPROB = -9999.0  # JSON has no minus infinity


def finite_logprob(logprob: float) -> float:
    """A log-probability that JSON can represent."""
    return max(logprob, _MIN_LOGPROB)


def token_object(logprob: TokenLogprob) -> dict[str, Any]:
    """A token with the most likely ones at its position."""
    return {**_token_fields(logprob), "top_logprobs": [_token_fields(top) for top in logprob.top]}


def response_token_object(logprob: TokenLogprob) -> dict[str, Any]:
    """A token of a response, where `bytes` is empty, not null, for a special token."""
    shown = token_object(logprob)
    for token in (shown, *shown["top_logprobs"]):
        token["bytes"] = token["bytes"] or []
    return shown


def _token_fields(logprob: TokenLogprob) -> dict[str, Any]:
    return {
        "token": logprob.token,
        "bytes": None if logprob.bytes is None else list(logprob.bytes),
        "logprob": finite_logprob(logprob.logprob),
    }
