"""Log-probabilities of tokens as chat completions and responses show them."""

from typing import Any

from emojitune.inference.types import TokenLogprob

_LEAST = -9999.0  # minus infinity is no JSON


def least_bounded(logprob: float) -> float:
    """A log-probability that JSON has a number for."""
    return max(logprob, _LEAST)


def token_object(logprob: TokenLogprob) -> dict[str, Any]:
    """A token with the likeliest in its place."""
    return {**_bare(logprob), "top_logprobs": [_bare(top) for top in logprob.top]}


def token_object_of_response(logprob: TokenLogprob) -> dict[str, Any]:
    """The same where `bytes` may not be null: a special token has none."""
    shown = token_object(logprob)
    for token in (shown, *shown["top_logprobs"]):
        token["bytes"] = token["bytes"] or []
    return shown


def _bare(logprob: TokenLogprob) -> dict[str, Any]:
    return {
        "token": logprob.token,
        "logprob": least_bounded(logprob.logprob),
        "bytes": None if logprob.bytes is None else list(logprob.bytes),
    }
