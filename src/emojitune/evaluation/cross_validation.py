"""Cross-validation of a training file: what is left out in which round, and how it is pooled.

Knows examples and evaluations; who trains on the rest is not its business.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emojitune.dataset.example import TrainingExample
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.evaluate import Evaluation

PROTOCOL = (
    "In each round one example of every label that has two or more, chosen by the round's seed, is "
    "left out; the rest is trained on, and the examples left out are scored. Rounds are pooled: "
    "an example that was left out several times counts as one observation, and intervals and "
    "paired tests draw whole examples. Every model and baseline sees the same rounds."
)


@dataclass(frozen=True, slots=True)
class Fold:
    """One round: what is trained on and what is scored, each in the order of the file."""

    seed: int
    training: tuple[TrainingExample, ...]
    held_out: tuple[TrainingExample, ...]


def leave_one_out_by_label(examples: Sequence[TrainingExample], seed: int) -> Fold:
    """The round of a seed. Every label keeps an example to be trained on."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        places[example.reply].append(place)
    draw = random.Random(seed)
    out = {draw.choice(known) for known in places.values() if len(known) > 1}
    if not out:
        raise InvalidRequestError(
            "Cross-validation leaves out one example of each label that has two or more, and every "
            "label of this file has one. Add examples, or score on another file with --data."
        )
    return Fold(
        seed,
        tuple(example for place, example in enumerate(examples) if place not in out),
        tuple(examples[place] for place in sorted(out)),
    )


def pooled(rounds: Iterable[Evaluation]) -> Evaluation:
    """The replies of all rounds together."""
    return Evaluation(tuple(scored for one in rounds for scored in one.scored))
