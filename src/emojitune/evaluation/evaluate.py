"""Evaluation of a model on examples: a reply to each prompt, and its scores.

`complete` is any callable, local or remote: this module knows neither models nor servers.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.metrics import METRICS, TEXT_METRICS, Reply

Complete = Callable[[Sequence[Message]], Reply]
"""Completes a prompt with a reply."""


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """One example, its reply, and the value of each metric by its name."""

    example: TrainingExample
    reply: Reply
    values: dict[str, float]

    @property
    def hit(self) -> bool:
        """Whether the reply is the expected one."""
        return self.values["top_1"] == 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All scored examples, in their original order."""

    scored: tuple[ScoredExample, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        return tuple(self.scored[0].values)

    @property
    def of_labels(self) -> bool:
        """Whether replies were scored as labels, or as text."""
        return "in_vocabulary" in self.metrics

    def mean(self, metric: str) -> float:
        """The mean of a metric, by its name: from 0 to 1."""
        return sum(scored.values[metric] for scored in self.scored) / len(self.scored)


def evaluate(
    complete: Complete,
    examples: Sequence[TrainingExample],
    vocabulary: Collection[str],
    *,
    workers: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score `complete` on `examples`.

    Replies are scored as labels of the `vocabulary`, and without one as text. Requests run
    concurrently in threads, so that a server can batch them. The first error ends the evaluation
    and is raised.

    Args:
        progress: Called with (done, total) after each reply.
    """
    if not examples:
        raise InvalidRequestError("There is nothing to evaluate: the file holds no example.")
    labels = frozenset(vocabulary)
    metrics = METRICS if labels else TEXT_METRICS
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(complete, example.prompt) for example in examples]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if progress:
                progress(done, len(examples))
    finally:
        pool.shutdown(cancel_futures=True)
    pairs = zip(examples, futures, strict=True)
    scored = []
    for example, future in pairs:
        reply = future.result()
        values = {m.name: float(m.score(reply, example.reply, labels)) for m in metrics}
        scored.append(ScoredExample(example, reply, values))
    return Evaluation(tuple(scored))
