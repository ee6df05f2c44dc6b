"""Pure scorers of one reply. White space around a reply is not held against it.

`METRICS` names all that an evaluation reports of replies that are labels, `TEXT_METRICS` of others.
Each gives a number from 0 to 1 for one reply; the figure of a model is their mean.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from emojitune.evaluation.rouge import rouge_l
from emojitune.labels import is_label, to_emoji


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        alternatives: The best replies, best first; the text itself is the first.
        confidence: The probability that the model gave the text, if it is known.
        seconds: How long it took, if that was measured.
    """

    text: str
    alternatives: tuple[str, ...] = ()
    confidence: float | None = None
    seconds: float | None = None


def in_style(text: str) -> bool:
    """One bare label in parentheses, whatever the vocabulary."""
    return is_label(text.strip())


def in_vocabulary(text: str, vocabulary: Collection[str]) -> bool:
    """One of the replies that were learned."""
    return text.strip() in vocabulary


def top_1(text: str, expected: str) -> bool:
    """The expected reply, word for word."""
    return text.strip() == expected.strip()


def top_k(alternatives: Sequence[str], expected: str, k: int = 5) -> bool:
    """The expected reply is among the first `k` alternatives, best first."""
    return any(top_1(text, expected) for text in alternatives[:k])


def reciprocal_rank(alternatives: Sequence[str], expected: str, k: int = 5) -> float:
    """1 / the place of the expected reply among the first `k` alternatives; 0 if not there."""
    places = (at for at, text in enumerate(alternatives[:k], start=1) if top_1(text, expected))
    return 1 / next(places, float("inf"))


def as_shown(reply: Reply) -> Reply:
    """The reply with emoji for labels: what different labels show alike is then the same."""
    shown = tuple(to_emoji(text.strip()) for text in reply.alternatives)
    return Reply(to_emoji(reply.text.strip()), shown)


@dataclass(frozen=True, slots=True)
class Metric:
    """A scorer with its names: in JSON, and to people. `of(reply, expected, vocabulary)`.

    Of a share a reply has all or nothing.
    """

    name: str
    title: str
    of: Callable[[Reply, str, Collection[str]], float]
    is_share: bool = True


def _same_emoji(metric: Metric) -> Metric:
    return Metric(
        f"same_emoji_{metric.name}",
        f"same emoji, {metric.title}",
        lambda reply, expected, known: metric.of(
            as_shown(reply), to_emoji(expected.strip()), known
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
        "in_vocabulary", "in vocabulary", lambda reply, _, known: in_vocabulary(reply.text, known)
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
