"""Metrics of one reply, as pure functions. White space around a reply is ignored.

`METRICS` are for replies that are labels, `TEXT_METRICS` for others. Each gives a number from 0 to
1 for one reply; a model's value is the mean over its replies.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from emojitune.evaluation.rouge import rouge_l
from emojitune.labels import is_label, to_emoji


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply to one prompt.

    Attributes:
        alternatives: The best replies, best first, beginning with the text itself.
        confidence: The model's probability of the text, if known.
        seconds: The time from request to reply, if measured.
    """

    text: str
    alternatives: tuple[str, ...] = ()
    confidence: float | None = None
    seconds: float | None = None


def in_style(text: str) -> bool:
    """Whether a reply is one label in parentheses, in any vocabulary."""
    return is_label(text.strip())


def in_vocabulary(text: str, vocabulary: Collection[str]) -> bool:
    """Whether a reply is one of the vocabulary."""
    return text.strip() in vocabulary


def top_1(text: str, expected: str) -> bool:
    """Whether a reply is the expected one, word for word."""
    return text.strip() == expected.strip()


def top_k(alternatives: Sequence[str], expected: str, k: int = 5) -> bool:
    """Whether the expected reply is among the first `k` alternatives."""
    return any(top_1(text, expected) for text in alternatives[:k])


def reciprocal_rank(alternatives: Sequence[str], expected: str, k: int = 5) -> float:
    """1 / the rank of the expected reply among the first `k` alternatives; 0 without one."""
    ranks = (rank for rank, text in enumerate(alternatives[:k], start=1) if top_1(text, expected))
    return 1 / next(ranks, float("inf"))


def with_emoji(reply: Reply) -> Reply:
    """Replace labels by their emoji, so that labels with the same emoji are equal."""
    alternatives = tuple(to_emoji(text.strip()) for text in reply.alternatives)
    return Reply(to_emoji(reply.text.strip()), alternatives)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name in JSON, its title, and its function of (reply, expected, vocabulary).

    The mean of a share is the percentage of replies for which it is 1; other metrics have values
    in between.
    """

    name: str
    title: str
    score: Callable[[Reply, str, Collection[str]], float]
    is_share: bool = True


def _same_emoji(metric: Metric) -> Metric:
    return Metric(
        f"same_emoji_{metric.name}",
        f"same emoji, {metric.title}",
        lambda reply, expected, vocabulary: metric.score(
            with_emoji(reply), to_emoji(expected.strip()), vocabulary
        ),
        metric.is_share,
    )


_TOP_1 = Metric("top_1", "top-1", lambda reply, expected, _: top_1(reply.text, expected))
_HITS = (
    _TOP_1,
    Metric("top_3", "top-3", lambda reply, expected, _: top_k(reply.alternatives, expected, k=3)),
    Metric("top_5", "top-5", lambda reply, expected, _: top_k(reply.alternatives, expected)),
    Metric(
        "mean_reciprocal_rank",
        "mean reciprocal rank",
        lambda reply, expected, _: reciprocal_rank(reply.alternatives, expected),
        is_share=False,
    ),
)
METRICS = (
    Metric("in_style", "in style", lambda reply, _, __: in_style(reply.text)),
    Metric(
        "in_vocabulary", "in vocabulary", lambda reply, _, labels: in_vocabulary(reply.text, labels)
    ),
    *_HITS,
    *(_same_emoji(metric) for metric in _HITS),
)
TEXT_METRICS = (
    _TOP_1,
    Metric(
        "rouge_l",
        "ROUGE-L",
        lambda reply, expected, _: rouge_l(reply.text, expected),
        is_share=False,
    ),
)
