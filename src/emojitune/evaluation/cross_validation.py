"""Cross-validation of a training file: the split of each round, and the pooling of rounds.

Knows examples and evaluations, and no training.
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
    """The split of one round: examples to train on and to score, each in the order of the file."""

    seed: int
    training: tuple[TrainingExample, ...]
    held_out: tuple[TrainingExample, ...]


def leave_one_out_by_label(examples: Sequence[TrainingExample], seed: int) -> Fold:
    """The split for a seed: every label keeps an example to train on."""
    indices: defaultdict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        indices[example.reply].append(index)
    draw = random.Random(seed)
    held_out = {draw.choice(of_label) for of_label in indices.values() if len(of_label) > 1}
    if not held_out:
        raise InvalidRequestError(
            "Cross-validation leaves out one example of each label that has two or more, and every "
            "label of this file has one. Add examples, or score on another file with --data."
        )
    return Fold(
        seed,
        tuple(example for index, example in enumerate(examples) if index not in held_out),
        tuple(examples[index] for index in sorted(held_out)),
    )


def pool_rounds(rounds: Iterable[Evaluation]) -> Evaluation:
    """The scored examples of all rounds in one evaluation."""
    return Evaluation(tuple(scored for evaluation in rounds for scored in evaluation.scored))
