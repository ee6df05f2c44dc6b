"""Cross-validate a training file: each round is a job like any other, scored beside baselines."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from openai import OpenAI

from emojitune.dataset.example import TrainingExample
from emojitune.evaluation.baselines import majority, nearest_neighbour, tfidf_regression
from emojitune.evaluation.cross_validation import Fold, leave_one_out_by_label, pooled
from emojitune.evaluation.evaluate import Complete, Evaluation, evaluate
from emojitune.evaluation.intervals import Floats
from emojitune.evaluation.report import ReportRow, report_row
from emojitune.workflow import fine_tune
from emojitune.workflow.progress import Progress
from emojitune.workflow.provider import provider_errors
from emojitune.workflow.score import CONSTRAINED, FREE, Contender, completer, warm_up

BASELINE = "baseline"
TUNED = "fine-tuned"
_WORKERS = 32
_TEXTS_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Rounds:
    """What is cross-validated: a base model, tuned so long, once for each seed."""

    base: str
    epochs: int
    seeds: tuple[int, ...]


Follow = Callable[[int, Iterable[Progress]], object]
"""Draws the job of a round (its seed, its progress) to the end."""

Counting = Callable[[], AbstractContextManager[Callable[[str, int, int], None]]]
"""Opens what hears (who is scored, done, all) while a round is scored."""


def cross_validate(
    client: OpenAI,
    examples: Sequence[TrainingExample],
    vocabulary: Sequence[str],
    rounds: Rounds,
    *,
    follow: Follow,
    counting: Counting,
) -> list[ReportRow]:
    """A row for each baseline, the untuned base and the fine-tuned model, all rounds pooled."""
    results: dict[tuple[str, str], list[Evaluation]] = {}
    for seed in rounds.seeds:
        fold = leave_one_out_by_label(examples, seed)
        model = _train(client, fold, rounds, follow)
        contestants = _contestants(client, fold, model, rounds.base, vocabulary)
        with counting() as count:
            for name, decoding, complete in contestants:
                warm_up(complete, fold.held_out)
                heard = partial(count, f"{name}, {decoding}")
                found = evaluate(
                    complete, fold.held_out, vocabulary, workers=_WORKERS, progress=heard
                )
                results.setdefault((name, decoding), []).append(found)
    return [report_row(*key, pooled(found)) for key, found in results.items()]


def _train(client: OpenAI, fold: Fold, rounds: Rounds, follow: Follow) -> str:
    """The name of the model that is tuned on a round's training examples."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"cross_validation_{fold.seed}.jsonl"
        path.write_text("".join(f"{e.to_json()}\n" for e in fold.training), encoding="utf-8")
        file = fine_tune.upload(client, path)
    job = fine_tune.create_job(
        client,
        training_file=file.id,
        model=rounds.base,
        suffix=f"cv-{fold.seed}",
        n_epochs=rounds.epochs,
        seed=fold.seed,
    )
    follow(fold.seed, fine_tune.follow(client, job.id))
    with provider_errors():
        return fine_tune.fine_tuned_model(client.fine_tuning.jobs.retrieve(job.id))


def _contestants(
    client: OpenAI, fold: Fold, model: str, base: str, vocabulary: Sequence[str]
) -> Iterator[tuple[str, str, Complete]]:
    """(name, decoding, what is asked) of all that is scored in a round."""
    labels = tuple(vocabulary)
    ask = partial(completer, client, is_emojitune=True)
    yield "majority label", BASELINE, majority(fold.training)
    yield "TF-IDF + logistic regression", BASELINE, tfidf_regression(fold.training)
    neighbour = nearest_neighbour(fold.training, partial(_embed, client, base))
    yield "nearest neighbour, base's hidden states", BASELINE, neighbour
    yield "untuned base", CONSTRAINED, ask(Contender(base, CONSTRAINED, labels))
    yield TUNED, FREE, ask(Contender(model, FREE))
    yield TUNED, CONSTRAINED, ask(Contender(model, CONSTRAINED))


def _embed(client: OpenAI, model: str, texts: Sequence[str]) -> Floats:
    vectors = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        asked = list(texts[start : start + _TEXTS_AT_ONCE])
        with provider_errors():
            answer = client.embeddings.create(model=model, input=asked, encoding_format="float")
        vectors += [one.embedding for one in answer.data]
    return np.array(vectors)
