"""Ask for a reply to every example and score it.

`complete` is any callable, local or remote: this module knows neither models nor servers.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.metrics import in_style, in_vocabulary, top_1, top_k


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the text, and the best alternatives (the text itself first)."""

    text: str
    alternatives: tuple[str, ...] = ()


Complete = Callable[[Sequence[Message]], Reply]


@dataclass(frozen=True, slots=True)
class Scored:
    """One example, its reply, and what each metric says of it."""

    example: TrainingExample
    reply: Reply
    in_style: bool
    in_vocabulary: bool
    top_1: bool
    top_5: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All scored examples, in the order they were given; shares lie between 0 and 1."""

    scored: tuple[Scored, ...]

    @property
    def in_style(self) -> float:
        return self._share(one.in_style for one in self.scored)

    @property
    def in_vocabulary(self) -> float:
        return self._share(one.in_vocabulary for one in self.scored)

    @property
    def top_1(self) -> float:
        return self._share(one.top_1 for one in self.scored)

    @property
    def top_5(self) -> float:
        return self._share(one.top_5 for one in self.scored)

    def _share(self, hits: Iterable[bool]) -> float:
        return sum(hits) / len(self.scored)


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
    return Scored(
        example,
        reply,
        in_style=in_style(reply.text),
        in_vocabulary=in_vocabulary(reply.text, vocabulary),
        top_1=top_1(reply.text, example.reply),
        top_5=top_k(reply.alternatives, example.reply, k=5),
    )
