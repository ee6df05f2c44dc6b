"""How the replies of a model are measured, wherever the model runs.

Free decoding: the greedy reply, and four samples with a fixed seed as its alternatives. Constrained
decoding: the most probable labels, best first. Knows neither SDK nor engine: an `Ask` sends one
request to a model.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.evaluation.evaluate import Complete
from emojitune.evaluation.metrics import Reply
from emojitune.labels import label_meanings

FREE = "free"
CONSTRAINED = "constrained"
MAX_TOKENS = 12  # the longest label of the vocabulary has 11, and the end of the reply is another
ALTERNATIVES = 5
SAMPLING_SEED = 20240101  # any fixed number: two runs then score the same samples
LOCAL_WORKERS = 32  # concurrent requests: a local engine is fastest with large batches


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """The parameters of a request for replies to one conversation.

    Attributes:
        logprobs: Whether to return the log-probabilities of the reply's tokens.
        labels: Labels to constrain the reply to; () are the model's own.
        alternatives: Number of most probable labels to return.
        probabilities: Whether to return the probability of each of them.
    """

    decoding: Literal["free", "labels"]
    max_tokens: int = MAX_TOKENS
    temperature: float = 0
    n: int = 1
    seed: int | None = None
    logprobs: bool = False
    labels: tuple[str, ...] = ()
    alternatives: int = 0
    probabilities: bool = True


@dataclass(frozen=True, slots=True)
class ReplyResponse:
    """A model's response to a `ReplyRequest`.

    Attributes:
        texts: The `n` replies.
        logprob: Joint log-probability of the first reply's tokens, if requested and known.
        alternatives: Labels with their probabilities, best first.
    """

    texts: tuple[str, ...]
    logprob: float | None = None
    alternatives: tuple[tuple[str, float | None], ...] = ()


Ask = Callable[[Sequence[Message], ReplyRequest], ReplyResponse]


def free_requests(text_tokens: int | None = None) -> tuple[ReplyRequest, ...]:
    """The requests for one conversation: the greedy reply, and the samples if replies are labels.

    Args:
        text_tokens: The maximum length of replies that are text; None if they are labels.
    """
    greedy = ReplyRequest("free", max_tokens=text_tokens or MAX_TOKENS, logprobs=True)
    if text_tokens is not None:
        return (greedy,)
    return greedy, ReplyRequest("free", temperature=1, n=ALTERNATIVES - 1, seed=SAMPLING_SEED)


def free(ask: Ask, *, text_tokens: int | None = None) -> Complete:
    """Measure free decoding.

    Args:
        text_tokens: The maximum length of replies that are text, which get no alternatives; None
            if replies are labels.
    """
    greedy, *sampled = free_requests(text_tokens)

    def complete(messages: Sequence[Message]) -> Reply:
        response, seconds = _timed(ask, messages, greedy)
        alternatives = response.texts
        for request in sampled:
            alternatives += ask(messages, request).texts
        logprob = response.logprob
        confidence = None if logprob is None else min(1.0, math.exp(logprob))
        return Reply(response.texts[0], alternatives, confidence, seconds)

    return complete


def constrained(ask: Ask, *, labels: tuple[str, ...] = (), calibrated: bool = True) -> Complete:
    """Measure constrained decoding.

    Args:
        labels: A vocabulary to constrain the model to; () is the model's own.
        calibrated: Whether to request probabilities, which takes about as long again.
    """
    request = ReplyRequest(
        "labels", labels=labels, alternatives=ALTERNATIVES, probabilities=calibrated
    )

    def complete(messages: Sequence[Message]) -> Reply:
        response, seconds = _timed(ask, messages, request)
        texts = tuple(text for text, _ in response.alternatives)
        _, confidence = response.alternatives[0]
        return Reply(response.texts[0], texts, confidence, seconds)

    return complete


def warm_up(complete: Complete, examples: Sequence[TrainingExample]) -> None:
    """Complete one prompt without scoring it, so that loading the model is not timed."""
    for example in examples[:1]:
        complete(example.prompt)


def text_token_limit(examples: Sequence[TrainingExample]) -> int:
    """An upper bound on the tokens of an expected reply: in most languages a token has more than
    two bytes."""
    longest = max((len(example.reply.encode()) for example in examples), default=0)
    return MAX_TOKENS + longest // 2


def scoring_vocabulary(examples: Sequence[TrainingExample]) -> tuple[str, ...]:
    """The labels that ship with the package if they cover the examples, else the examples' replies
    if they are a closed vocabulary; () if they are text."""
    shipped = label_meanings()
    covered = all(example.reply in shipped for example in examples)
    return tuple(shipped) if covered else closed_vocabulary(examples)


def _timed(
    ask: Ask, messages: Sequence[Message], request: ReplyRequest
) -> tuple[ReplyResponse, float]:
    started = time.perf_counter()
    response = ask(messages, request)
    return response, time.perf_counter() - started
