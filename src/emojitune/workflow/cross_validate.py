"""Cross-validate a training file: each round is an ordinary job, scored against baselines."""

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
from emojitune.evaluation.cross_validation import Fold, leave_one_out_by_label, pool_rounds
from emojitune.evaluation.evaluate import Complete, Evaluation, evaluate
from emojitune.evaluation.intervals import Floats
from emojitune.evaluation.protocol import CONSTRAINED, FREE, LOCAL_WORKERS, warm_up
from emojitune.evaluation.report import ReportRow, report_row
from emojitune.workflow import fine_tune
from emojitune.workflow.progress import Progress
from emojitune.workflow.provider import provider_errors
from emojitune.workflow.score import Candidate, completer

BASELINE = "baseline"
TUNED = "fine-tuned"
_EMBEDDING_BATCH = 128


@dataclass(frozen=True, slots=True)
class CrossValidationConfig:
    """Which base model is fine-tuned for how many epochs, one round for each seed."""

    base: str
    epochs: int
    seeds: tuple[int, ...]


Follow = Callable[[int, Iterable[Progress]], object]
"""Consumes the progress of a round's job: (seed, progress)."""

OpenProgressBars = Callable[[], AbstractContextManager[Callable[[str, int, int], None]]]
"""Opens a callback for the progress of scoring: (system, done, total)."""


def cross_validate(
    client: OpenAI,
    examples: Sequence[TrainingExample],
    vocabulary: Sequence[str],
    config: CrossValidationConfig,
    *,
    follow: Follow,
    progress_bars: OpenProgressBars,
) -> list[ReportRow]:
    """Train and score every round; one row each for the baselines, the untuned base and the
    fine-tuned model, with all rounds pooled."""
    results: dict[tuple[str, str], list[Evaluation]] = {}
    for seed in config.seeds:
        fold = leave_one_out_by_label(examples, seed)
        model = _train(client, fold, config, follow)
        systems = _systems(client, fold, model, config.base, vocabulary)
        with progress_bars() as count:
            for name, decoding, complete in systems:
                warm_up(complete, fold.held_out)
                report = partial(count, f"{name}, {decoding}")
                result = evaluate(
                    complete, fold.held_out, vocabulary, workers=LOCAL_WORKERS, progress=report
                )
                results.setdefault((name, decoding), []).append(result)
    return [report_row(*key, pool_rounds(evaluations)) for key, evaluations in results.items()]


def _train(client: OpenAI, fold: Fold, config: CrossValidationConfig, follow: Follow) -> str:
    """Fine-tune on a round's training examples and return the model's name."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"cross_validation_{fold.seed}.jsonl"
        path.write_text("".join(f"{e.to_json()}\n" for e in fold.training), encoding="utf-8")
        file = fine_tune.upload(client, path)
    job = fine_tune.create_job(
        client,
        training_file=file.id,
        model=config.base,
        suffix=f"cv-{fold.seed}",
        n_epochs=config.epochs,
        seed=fold.seed,
    )
    follow(fold.seed, fine_tune.follow(client, job.id))
    with provider_errors():
        return fine_tune.fine_tuned_model(client.fine_tuning.jobs.retrieve(job.id))


def _systems(
    client: OpenAI, fold: Fold, model: str, base: str, vocabulary: Sequence[str]
) -> Iterator[tuple[str, str, Complete]]:
    """Every system that is scored in a round: (name, decoding, completer)."""
    labels = tuple(vocabulary)
    build = partial(completer, client, is_emojitune=True)
    yield "majority label", BASELINE, majority(fold.training)
    yield "TF-IDF + logistic regression", BASELINE, tfidf_regression(fold.training)
    knn = nearest_neighbour(fold.training, partial(_embed, client, base))
    yield "nearest neighbour, base's hidden states", BASELINE, knn
    yield "untuned base", CONSTRAINED, build(Candidate(base, CONSTRAINED, labels))
    yield TUNED, FREE, build(Candidate(model, FREE))
    yield TUNED, CONSTRAINED, build(Candidate(model, CONSTRAINED))


def _embed(client: OpenAI, model: str, texts: Sequence[str]) -> Floats:
    vectors = []
    for start in range(0, len(texts), _EMBEDDING_BATCH):
        batch = list(texts[start : start + _EMBEDDING_BATCH])
        with provider_errors():
            response = client.embeddings.create(model=model, input=batch, encoding_format="float")
        vectors += [item.embedding for item in response.data]
    return np.array(vectors)
