"""What labels mean, as training examples for each label that a file uses.

Most labels of a file have an example or two, which say little of what else they stand for. Where
the vocabulary of emoji labels knows all of them, it says so in a few words each.
"""

from collections import Counter
from collections.abc import Sequence

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.labels import label_meanings


def meaning_examples(examples: Sequence[TrainingExample]) -> tuple[TrainingExample, ...]:
    """Two examples for each label, as said by a user of the file: its meaning, and its keywords.

    None unless every reply is a known label: a file that has one of its own may mean something else
    by the others.
    """
    vocabulary, known = closed_vocabulary(examples), label_meanings()
    if not vocabulary or not set(vocabulary) <= known.keys():
        return ()
    opening = _opening(examples)
    return tuple(
        TrainingExample((*opening, Message("user", said), Message("assistant", label)))
        for label in vocabulary
        for said in (known[label].meaning, known[label].keywords)
    )


def _opening(examples: Sequence[TrainingExample]) -> tuple[Message, ...]:
    """What most conversations of a file have before the user speaks: its system prompt."""
    openings = Counter(
        tuple(
            message for message in example.messages[:1] if message.role in ("system", "developer")
        )
        for example in examples
    )
    return openings.most_common(1)[0][0]
