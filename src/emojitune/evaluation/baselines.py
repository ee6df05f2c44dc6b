"""What a fine-tuned model must beat: predictors that learn the same file without any fine-tuning.

Each is made from training examples and is asked for replies as a model is. They look at the last
question only. The untuned base is no baseline of this kind: it is a model.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import ConfigurationError
from emojitune.evaluation.evaluate import Complete
from emojitune.evaluation.intervals import Floats
from emojitune.evaluation.metrics import Reply

ALTERNATIVES = 5

Embed = Callable[[Sequence[str]], Floats]
"""N texts to vectors (N, dimensions)."""


def majority(training: Sequence[TrainingExample]) -> Complete:
    """The most frequent labels, whatever is said; among equals the first in the file."""
    counts = Counter(example.reply for example in training)
    best = counts.most_common(ALTERNATIVES)
    labels = tuple(label for label, _ in best)
    reply = Reply(labels[0], labels, best[0][1] / len(training))
    return lambda _: reply


def tfidf_regression(training: Sequence[TrainingExample]) -> Complete:
    """Logistic regression on TF-IDF of words and pairs of words, by scikit-learn."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError as error:
        raise ConfigurationError(
            "The TF-IDF baseline needs scikit-learn, which is not installed. Run: "
            ".venv/bin/python -m pip install -c constraints.txt -e '.[evaluate]'"
        ) from error
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000),
    )
    with warnings.catch_warnings():
        # It suspects a regression where labels have one example each.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        model.fit([example.question for example in training], [one.reply for one in training])

    def complete(messages: Sequence[Message]) -> Reply:
        [probabilities] = model.predict_proba([_question(messages)])
        best = np.argsort(-probabilities, kind="stable")[:ALTERNATIVES]
        labels = tuple(str(model.classes_[place]) for place in best)
        return Reply(labels[0], labels, float(probabilities[best[0]]))

    return complete


def nearest_neighbour(training: Sequence[TrainingExample], embed: Embed) -> Complete:
    """The labels of the nearest training questions, by the cosine of their vectors.

    The mean of the training questions is taken off first: hidden states all point roughly one way.
    """
    known = embed([example.question for example in training])
    middle = known.mean(axis=0)
    known = _unit(known - middle)

    def complete(messages: Sequence[Message]) -> Reply:
        [asked] = _unit(embed([_question(messages)]) - middle)
        nearest = np.argsort(-(known @ asked), kind="stable")
        labels = tuple(dict.fromkeys(training[place].reply for place in nearest))[:ALTERNATIVES]
        return Reply(labels[0], labels)

    return complete


_INVERSE_PENALTY = 100.0  # the best of 1, 10, 100 and 1000: see docs/log


def _question(messages: Sequence[Message]) -> str:
    return TrainingExample((*messages, Message("assistant", ""))).question


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
