"""Score a model through the SDK: what it replies freely, and what it replies held to labels.

Where no labels are expected, but text, only the former, and no second best.
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
from emojitune.workflow.reply_cache import KeptReplies

MAX_TOKENS = 12  # the longest label of the vocabulary has 11, and then the end is said
ALTERNATIVES = 5
SAMPLING_SEED = 20240101  # any fixed number: two runs then score the same samples

FREE = "free"
CONSTRAINED = "constrained"


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table to be: a model, and how it is decoded.

    Attributes:
        labels: Hold a model to a vocabulary that it was not tuned on; () leaves it to its own.
        text: Free replies are text of at most so many tokens, not labels.
    """

    model: str
    decoding: str
    labels: tuple[str, ...] = ()
    text: int | None = None


def contenders(model: str, *, base: str, vocabulary: tuple[str, ...]) -> tuple[Contender, ...]:
    """The four rows of the comparison: untuned and fine-tuned, free and constrained."""
    return (
        Contender(base, FREE),
        Contender(base, CONSTRAINED, vocabulary),
        Contender(model, FREE),
        Contender(model, CONSTRAINED),
    )


def text_contenders(
    model: str, *, base: str, examples: Sequence[TrainingExample]
) -> tuple[Contender, ...]:
    """Untuned and fine-tuned, where the examples' replies are text."""
    most = longest_reply(examples)
    return Contender(base, FREE, text=most), Contender(model, FREE, text=most)


def longest_reply(examples: Sequence[TrainingExample]) -> int:
    """Tokens that no expected reply exceeds: in most languages one has more than two bytes."""
    longest = max((len(example.reply.encode()) for example in examples), default=0)
    return MAX_TOKENS + longest // 2


def score(
    client: OpenAI,
    rows: Iterable[Contender],
    examples: Sequence[TrainingExample],
    vocabulary: Sequence[str],
    *,
    is_emojitune: bool,
    calibrated: bool = True,
    workers: int | None = None,
    progress: Callable[[Contender, int, int], None] | None = None,
    kept: Callable[[Contender], KeptReplies | None] = lambda row: None,
) -> list[ReportRow]:
    """Score each contender on `examples`; `progress` hears (contender, done, all).

    `kept` says where replies of a contender are known from, and where to keep them.
    Unless `calibrated`, constrained replies are not asked how probable they are: to know takes
    about as long again.
    """
    # A local engine is quickest with many at once; a hosted one counts requests a minute.
    workers = workers or (32 if is_emojitune else 16)
    table = []
    for row in rows:
        complete = completer(client, row, is_emojitune=is_emojitune, calibrated=calibrated)
        if replies := kept(row):
            complete = replies.completing(complete)
        warm_up(complete, examples)
        heard = partial(progress, row) if progress else None
        result = evaluate(complete, examples, vocabulary, workers=workers, progress=heard)
        table.append(report_row(row.model, row.decoding, result))
    return table


def warm_up(complete: Complete, examples: Sequence[TrainingExample]) -> None:
    """Ask once, unscored: to load a model takes a while, and is no part of a reply's time."""
    for example in examples[:1]:
        complete(example.prompt)


def completer(
    client: OpenAI, contender: Contender, *, is_emojitune: bool, calibrated: bool = True
) -> Complete:
    """The callable that `evaluate` asks for replies."""
    if contender.decoding == CONSTRAINED:
        return _labels_completer(client, contender, calibrated)
    return _free_completer(client, contender, {"decoding": "free"} if is_emojitune else {})


def _labels_completer(client: OpenAI, contender: Contender, calibrated: bool) -> Complete:
    extra: dict[str, Any] = {"decoding": "labels", "alternatives": ALTERNATIVES}
    if not calibrated:
        extra["probabilities"] = False
    if contender.labels:
        extra["labels"] = contender.labels

    def complete(messages: Sequence[Message]) -> Reply:
        asked = time.perf_counter()
        answer = _ask(client, contender.model, messages, extra=extra, temperature=0)
        seconds = time.perf_counter() - asked
        found = _alternatives(answer)
        labels = tuple(one["content"] for one in found)
        return Reply(_texts(answer)[0], labels, found[0].get("probability"), seconds)

    return complete


def _free_completer(client: OpenAI, contender: Contender, extra: dict[str, Any]) -> Complete:
    """The greedy reply; of labels, samples as alternatives too. Every API can do that."""
    ask = partial(
        _ask, client, contender.model, extra=extra, max_tokens=contender.text or MAX_TOKENS
    )

    def complete(messages: Sequence[Message]) -> Reply:
        asked = time.perf_counter()
        greedy = ask(messages, temperature=0, logprobs=True)
        seconds = time.perf_counter() - asked
        (best,) = _texts(greedy)
        alternatives = [best]
        if contender.text is None:
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
        answer: ChatCompletion = client.chat.completions.create(
            model=model, messages=plain, max_tokens=max_tokens, extra_body=extra, **parameters
        )
    return answer


def _texts(answer: ChatCompletion) -> list[str]:
    return [choice.message.content or "" for choice in answer.choices]


def _confidence(answer: ChatCompletion) -> float | None:
    """The joint probability of a reply's tokens, where the API tells it."""
    told = answer.choices[0].logprobs
    if told is None or told.content is None:
        return None
    return min(1.0, math.exp(sum(token.logprob for token in told.content)))


def _alternatives(answer: ChatCompletion) -> list[dict[str, Any]]:
    found = getattr(answer.choices[0], "alternatives", None)
    if not isinstance(found, list):
        raise ProviderError(
            "The API sent no alternatives: constrained decoding is emojitune's own. "
            "Score this model with free decoding."
        )
    return found
