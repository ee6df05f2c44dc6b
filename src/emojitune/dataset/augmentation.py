"""Data augmentation: the meanings of labels as training examples.

Most labels of a file have one or two examples, which say little about what else they mean. The
vocabulary of emoji labels says more, in a few words for each.
"""

from collections import Counter
from collections.abc import Sequence

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.labels import label_meanings


def meaning_examples(examples: Sequence[TrainingExample]) -> tuple[TrainingExample, ...]:
    """Two examples for each label, with its meaning and its keywords as the user's message.

    None unless the vocabulary has every label: in a file with labels of its own, the others may
    have another meaning, too.
    """
    vocabulary, meanings = closed_vocabulary(examples), label_meanings()
    if not vocabulary or not set(vocabulary) <= meanings.keys():
        return ()
    system = _usual_system_message(examples)
    return tuple(
        TrainingExample((*system, Message("user", text), Message("assistant", label)))
        for label in vocabulary
        for text in (meanings[label].meaning, meanings[label].keywords)
    )


def _usual_system_message(examples: Sequence[TrainingExample]) -> tuple[Message, ...]:
    """The system message of most examples; () where most have none."""
    frequencies = Counter(
        tuple(m for m in example.messages[:1] if m.role in ("system", "developer"))
        for example in examples
    )
    return frequencies.most_common(1)[0][0]
