"""Log-probabilities of tokens as chat completions and responses show them."""

from typing import Any

from emojitune.inference.types import TokenLogprob

_MIN_LOGPROB = -9999.0  # minus infinity is no JSON


def finite_logprob(logprob: float) -> float:
    """A log-probability that JSON has a number for."""
    return max(logprob, _MIN_LOGPROB)


def token_object(logprob: TokenLogprob) -> dict[str, Any]:
    """A token with the likeliest in its place."""
    return {**_token_fields(logprob), "top_logprobs": [_token_fields(top) for top in logprob.top]}


def response_token_object(logprob: TokenLogprob) -> dict[str, Any]:
    """The same where `bytes` may not be null: a special token has none."""
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
