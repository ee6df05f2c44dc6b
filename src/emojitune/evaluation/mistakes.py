"""What an evaluation got wrong: each reply, and which labels are taken for which."""

from collections import defaultdict
from dataclasses import dataclass

from emojitune.evaluation.evaluate import Evaluation, ScoredExample


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often one reply came where another was expected, and the sum of its confidences."""

    expected: str
    reply: str
    count: int
    confidence: float


def wrong_replies(evaluation: Evaluation) -> list[ScoredExample]:
    """Every reply that is not the expected one, the most confident first."""
    wrong = [one for one in evaluation.scored if not one.hit]
    return sorted(wrong, key=lambda one: -(one.reply.confidence or 0.0))


def confusions(evaluation: Evaluation) -> list[Confusion]:
    """Every pair of an expected and a wrong reply: the most frequent first, then the surest."""
    found: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for one in wrong_replies(evaluation):
        pair = (one.example.reply.strip(), one.reply.text.strip())
        found[pair].append(one.reply.confidence or 0.0)
    pairs = [Confusion(*pair, len(sure), sum(sure)) for pair, sure in found.items()]
    return sorted(pairs, key=lambda one: (-one.count, -one.confidence, one.expected, one.reply))
