"""Baselines that a fine-tuned model must beat: predictors trained on the same file without a model.

Each is built from training examples and completes prompts like a model. They look at the last
question only. The untuned base model is compared, too, but is not a baseline of this kind.
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
from emojitune.evaluation.protocol import ALTERNATIVES

Embed = Callable[[Sequence[str]], Floats]
"""Embeds N texts as vectors (N, dimensions)."""


def majority(training: Sequence[TrainingExample]) -> Complete:
    """The most frequent labels, for any prompt; among equals the first in the file."""
    counts = Counter(example.reply for example in training)
    best = counts.most_common(ALTERNATIVES)
    labels = tuple(label for label, _ in best)
    reply = Reply(labels[0], labels, best[0][1] / len(training))
    return lambda _: reply


def tfidf_regression(training: Sequence[TrainingExample]) -> Complete:
    """Logistic regression on TF-IDF of words and bigrams, by scikit-learn."""
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
        # scikit-learn suspects a regression where labels have one example each.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        model.fit([example.question for example in training], [one.reply for one in training])

    def complete(messages: Sequence[Message]) -> Reply:
        [probabilities] = model.predict_proba([_question(messages)])
        best = np.argsort(-probabilities, kind="stable")[:ALTERNATIVES]
        labels = tuple(str(model.classes_[index]) for index in best)
        return Reply(labels[0], labels, float(probabilities[best[0]]))

    return complete


def nearest_neighbour(training: Sequence[TrainingExample], embed: Embed) -> Complete:
    """The labels of the nearest training questions, by cosine similarity.

    Vectors are centred on the mean of the training questions first: hidden states all point roughly
    in one direction.
    """
    vectors = embed([example.question for example in training])
    mean = vectors.mean(axis=0)
    keys = _normalized(vectors - mean)

    def complete(messages: Sequence[Message]) -> Reply:
        [query] = _normalized(embed([_question(messages)]) - mean)
        nearest = np.argsort(-(keys @ query), kind="stable")
        labels = tuple(dict.fromkeys(training[index].reply for index in nearest))[:ALTERNATIVES]
        return Reply(labels[0], labels)

    return complete


_INVERSE_PENALTY = 100.0  # the best of 1, 10, 100 and 1000: see docs/log


def _question(messages: Sequence[Message]) -> str:
    return TrainingExample((*messages, Message("assistant", ""))).question


def _normalized(vectors: Floats) -> Floats:
    """(N, dimensions) vectors of length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: Floats = vectors / np.maximum(lengths, 1e-12)
    return normalized
