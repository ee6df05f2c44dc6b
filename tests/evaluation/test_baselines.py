"""Each baseline on examples whose answer can be seen."""

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import ConfigurationError
from emojitune.evaluation.baselines import majority, nearest_neighbour, tfidf_regression
from emojitune.evaluation.intervals import Floats


def example(question: str, reply: str) -> TrainingExample:
    system = Message("system", "Only emojis!")
    return TrainingExample((system, Message("user", question), Message("assistant", reply)))


TRAINING = [
    example("the dog barks at the postman", "(dog)"),
    example("my puppy dog sleeps", "(dog)"),
    example("we won the cup", "(party)"),
    example("so tired, time for bed", "(yawn)"),
]


def prompt(question: str) -> tuple[Message, ...]:
    return example(question, "").prompt


def test_majority_replies_the_most_frequent_labels() -> None:
    reply = majority(TRAINING)(prompt("anything"))
    assert (reply.text, reply.confidence) == ("(dog)", 0.5)
    assert reply.alternatives == ("(dog)", "(party)", "(yawn)")


def test_tfidf_goes_by_words() -> None:
    complete = tfidf_regression(TRAINING)
    reply = complete(prompt("Tired! Off to bed."))
    assert reply.text == "(yawn)"
    assert reply.alternatives[0] == "(yawn)"
    assert set(reply.alternatives) == {"(dog)", "(party)", "(yawn)"}
    assert reply.confidence is not None
    assert 1 / 3 < reply.confidence < 1
    assert complete(prompt("is that your dog")).text == "(dog)"


def test_tfidf_without_scikit_learn_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match="pip install"):
        tfidf_regression(TRAINING)


def test_nearest_neighbour_ranks_labels_by_their_nearest_question() -> None:
    angles = {one.question: angle for one, angle in zip(TRAINING, (0, 170, 60, 240), strict=True)}

    def embed(texts: Sequence[str]) -> Floats:
        # All far off to one side, as hidden states are: only the differences tell.
        turned = np.deg2rad([angles.get(text, 70) for text in texts])
        return np.stack([100 + np.cos(turned), np.sin(turned)], axis=1)

    middle = embed([one.question for one in TRAINING]).mean(axis=0)
    points, [point] = embed([one.question for one in TRAINING]) - middle, embed(["?"]) - middle
    cosines = [float(one @ point / np.linalg.norm(one) / np.linalg.norm(point)) for one in points]
    best: dict[str, float] = {}
    for one, cosine in zip(TRAINING, cosines, strict=True):
        best[one.reply] = max(best.get(one.reply, -1.0), cosine)
    reply = nearest_neighbour(TRAINING, embed)(prompt("?"))
    assert reply.alternatives == tuple(sorted(best, key=lambda label: -best[label]))
    assert reply.text == "(party)"
    assert reply.confidence is None
