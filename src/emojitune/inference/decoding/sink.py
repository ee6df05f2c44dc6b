"""The receiver of decoded tokens: decoders push, so that text is sent as soon as it is certain."""

from collections.abc import Sequence
from typing import Literal, Protocol

from emojitune.inference.decoding.label_search import ScoredLabel
from emojitune.inference.decoding.sampling import TopLogprobs


class TokenSink(Protocol):
    """All replies to one request, each by its index."""

    def token(self, index: int, token: int, logprobs: TopLogprobs | None) -> bool:
        """Take the next token of a reply; False ends the reply."""
        ...

    def end(self, index: int, reason: Literal["stop", "length"]) -> None:
        """Take the end of a reply."""
        ...

    def rank(self, ranking: Sequence[ScoredLabel], log_total: float | None) -> None:
        """Take the best labels of a set, before any token of a reply.

        `log_total` is the score of the entire set; None where it is not known.
        """
        ...
