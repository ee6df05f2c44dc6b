"""Ask for a reply to every example and score it.

`complete` is any callable, local or remote: this module knows neither models nor servers.
"""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.metrics import METRICS, Reply

Complete = Callable[[Sequence[Message]], Reply]


@dataclass(frozen=True, slots=True)
class Scored:
    """One example, its reply, and what each of `METRICS` says of it, by name."""

    example: TrainingExample
    reply: Reply
    values: dict[str, float]

    @property
    def hit(self) -> bool:
        """Whether the reply is the expected one."""
        return self.values["top_1"] == 1


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All scored examples, in the order they were given."""

    scored: tuple[Scored, ...]

    def mean(self, metric: str) -> float:
        """The figure of a metric, by its name: from 0 to 1."""
        return sum(one.values[metric] for one in self.scored) / len(self.scored)


def evaluate(
    complete: Complete,
    examples: Sequence[TrainingExample],
    vocabulary: Collection[str],
    *,
    workers: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score `complete` on `examples`; `progress` hears (done, all) after each reply.

    Requests run side by side in threads, so that a server can batch them. The first error ends
    the evaluation and is raised.
    """
    if not examples:
        raise InvalidRequestError("There is nothing to evaluate: the file holds no example.")
    known = frozenset(vocabulary)
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
    return Evaluation(tuple(_score(example, f.result(), known) for example, f in pairs))


def _score(example: TrainingExample, reply: Reply, vocabulary: Collection[str]) -> Scored:
    values = {m.name: float(m.of(reply, example.reply, vocabulary)) for m in METRICS}
    return Scored(example, reply, values)
