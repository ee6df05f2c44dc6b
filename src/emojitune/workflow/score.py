"""Score models through the SDK, with free and with constrained decoding.

Where the expected replies are text rather than labels, only with free decoding and without
alternatives.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import ProviderError
from emojitune.evaluation.evaluate import Complete, evaluate
from emojitune.evaluation.metrics import Reply
from emojitune.evaluation.report import ReportRow, report_row
from emojitune.workflow.provider import provider_errors
from emojitune.workflow.reply_cache import ReplyCache

MAX_TOKENS = 12  # the longest label of the vocabulary has 11, and then the end is said
ALTERNATIVES = 5
SAMPLING_SEED = 20240101  # any fixed number: two runs then score the same samples

FREE = "free"
CONSTRAINED = "constrained"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model and a way of decoding: one row of the table.

    Attributes:
        labels: A vocabulary to constrain the model to; () is the model's own.
        text_tokens: The maximum length of a free reply that is text; None if replies are labels.
    """

    model: str
    decoding: str
    labels: tuple[str, ...] = ()
    text_tokens: int | None = None


def label_candidates(
    model: str, *, base: str, vocabulary: tuple[str, ...]
) -> tuple[Candidate, ...]:
    """The four rows of the comparison: untuned and fine-tuned, free and constrained."""
    return (
        Candidate(base, FREE),
        Candidate(base, CONSTRAINED, vocabulary),
        Candidate(model, FREE),
        Candidate(model, CONSTRAINED),
    )


def text_candidates(
    model: str, *, base: str, examples: Sequence[TrainingExample]
) -> tuple[Candidate, ...]:
    """The two rows of the comparison where replies are text: untuned and fine-tuned."""
    limit = text_token_limit(examples)
    return Candidate(base, FREE, text_tokens=limit), Candidate(model, FREE, text_tokens=limit)


def text_token_limit(examples: Sequence[TrainingExample]) -> int:
    """An upper bound on the tokens of an expected reply: in most languages a token has more than
    two bytes."""
    longest = max((len(example.reply.encode()) for example in examples), default=0)
    return MAX_TOKENS + longest // 2


def score(
    client: OpenAI,
    candidates: Iterable[Candidate],
    examples: Sequence[TrainingExample],
    vocabulary: Sequence[str],
    *,
    is_emojitune: bool,
    calibrated: bool = True,
    workers: int | None = None,
    progress: Callable[[Candidate, int, int], None] | None = None,
    cache_of: Callable[[Candidate], ReplyCache | None] = lambda candidate: None,
) -> list[ReportRow]:
    """Score each candidate on `examples`.

    Args:
        calibrated: Whether to request the probabilities of constrained replies, which takes about
            as long again.
        workers: Number of concurrent requests.
        progress: Called with (candidate, done, total) after each reply.
        cache_of: Returns the cache for the replies of a candidate, if there is one.
    """
    # A local engine is fastest with large batches; a hosted one limits requests per minute.
    workers = workers or (32 if is_emojitune else 16)
    table = []
    for candidate in candidates:
        complete = completer(client, candidate, is_emojitune=is_emojitune, calibrated=calibrated)
        if cache := cache_of(candidate):
            complete = cache.wrap(complete)
        warm_up(complete, examples)
        report = partial(progress, candidate) if progress else None
        result = evaluate(complete, examples, vocabulary, workers=workers, progress=report)
        table.append(report_row(candidate.model, candidate.decoding, result))
    return table


def warm_up(complete: Complete, examples: Sequence[TrainingExample]) -> None:
    """Complete one prompt without scoring it, so that loading the model is not timed."""
    for example in examples[:1]:
        complete(example.prompt)


def completer(
    client: OpenAI, candidate: Candidate, *, is_emojitune: bool, calibrated: bool = True
) -> Complete:
    """The callable from which `evaluate` gets the candidate's replies."""
    if candidate.decoding == CONSTRAINED:
        return _labels_completer(client, candidate, calibrated)
    return _free_completer(client, candidate, {"decoding": "free"} if is_emojitune else {})


def _labels_completer(client: OpenAI, candidate: Candidate, calibrated: bool) -> Complete:
    extra: dict[str, Any] = {"decoding": "labels", "alternatives": ALTERNATIVES}
    if not calibrated:
        extra["probabilities"] = False
    if candidate.labels:
        extra["labels"] = candidate.labels

    def complete(messages: Sequence[Message]) -> Reply:
        started = time.perf_counter()
        completion = _ask(client, candidate.model, messages, extra=extra, temperature=0)
        seconds = time.perf_counter() - started
        alternatives = _alternatives(completion)
        labels = tuple(alternative["content"] for alternative in alternatives)
        return Reply(_texts(completion)[0], labels, alternatives[0].get("probability"), seconds)

    return complete


def _free_completer(client: OpenAI, candidate: Candidate, extra: dict[str, Any]) -> Complete:
    """The greedy reply; for labels also samples as alternatives. Works with every API."""
    ask = partial(
        _ask, client, candidate.model, extra=extra, max_tokens=candidate.text_tokens or MAX_TOKENS
    )

    def complete(messages: Sequence[Message]) -> Reply:
        started = time.perf_counter()
        greedy = ask(messages, temperature=0, logprobs=True)
        seconds = time.perf_counter() - started
        (best,) = _texts(greedy)
        alternatives = [best]
        if candidate.text_tokens is None:
            sampled = ask(messages, temperature=1, n=ALTERNATIVES - 1, seed=SAMPLING_SEED)
            alternatives += _texts(sampled)
        return Reply(best, tuple(alternatives), _confidence(greedy), seconds)

    return complete


def _ask(
    client: OpenAI,
    model: str,
    messages: Sequence[Message],
    *,
    extra: dict[str, Any],
    max_tokens: int = MAX_TOKENS,
    **parameters: Any,
) -> ChatCompletion:
    plain: Any = [{"role": message.role, "content": message.content} for message in messages]
    with provider_errors():
        completion: ChatCompletion = client.chat.completions.create(
            model=model, messages=plain, max_tokens=max_tokens, extra_body=extra, **parameters
        )
    return completion


def _texts(completion: ChatCompletion) -> list[str]:
    return [choice.message.content or "" for choice in completion.choices]


def _confidence(completion: ChatCompletion) -> float | None:
    """The joint probability of a reply's tokens; None if the API returns no logprobs."""
    logprobs = completion.choices[0].logprobs
    if logprobs is None or logprobs.content is None:
        return None
    return min(1.0, math.exp(sum(token.logprob for token in logprobs.content)))


def _alternatives(completion: ChatCompletion) -> list[dict[str, Any]]:
    alternatives = getattr(completion.choices[0], "alternatives", None)
    if not isinstance(alternatives, list):
        raise ProviderError(
            "The API sent no alternatives: constrained decoding is emojitune's own. "
            "Score this model with free decoding."
        )
    return alternatives
