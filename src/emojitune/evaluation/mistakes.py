"""The mistakes of an evaluation: wrong replies, and confusions of labels."""

from collections import defaultdict
from dataclasses import dataclass

from emojitune.evaluation.evaluate import Evaluation, ScoredExample


@dataclass(frozen=True, slots=True)
class Confusion:
    """A wrong reply to an expected one: how often it came, and the sum of its confidences."""

    expected: str
    reply: str
    count: int
    confidence: float


def wrong_replies(evaluation: Evaluation) -> list[ScoredExample]:
    """All wrong replies, the most confident first."""
    wrong = [scored for scored in evaluation.scored if not scored.hit]
    return sorted(wrong, key=lambda scored: -(scored.reply.confidence or 0.0))


def confusions(evaluation: Evaluation) -> list[Confusion]:
    """All pairs of an expected and a wrong reply, by frequency, then by confidence."""
    confidences: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for scored in wrong_replies(evaluation):
        pair = (scored.example.reply.strip(), scored.reply.text.strip())
        confidences[pair].append(scored.reply.confidence or 0.0)
    pairs = [Confusion(*pair, len(each), sum(each)) for pair, each in confidences.items()]
    return sorted(pairs, key=lambda one: (-one.count, -one.confidence, one.expected, one.reply))
