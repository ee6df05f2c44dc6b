"""Score models through the SDK, with free and with constrained decoding.

Where the expected replies are text rather than labels, only with free decoding and without
alternatives.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletion

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import ProviderError
from emojitune.evaluation import protocol
from emojitune.evaluation.evaluate import Complete, evaluate
from emojitune.evaluation.protocol import CONSTRAINED, FREE, ReplyRequest, ReplyResponse
from emojitune.evaluation.report import ReportRow, report_row
from emojitune.workflow.provider import provider_errors


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
    limit = protocol.text_token_limit(examples)
    return Candidate(base, FREE, text_tokens=limit), Candidate(model, FREE, text_tokens=limit)


def supported(candidates: Sequence[Candidate], *, is_emojitune: bool) -> tuple[Candidate, ...]:
    """The candidates that a provider can score: other APIs only the fine-tuned model, with free
    decoding, since only emojitune constrains and OpenAI has retired the untuned base."""
    if is_emojitune:
        return tuple(candidates)
    return tuple(candidate for candidate in candidates if candidate.decoding == FREE)[-1:]


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
    wrap: Callable[[Candidate, Complete], Complete] = lambda candidate, complete: complete,
) -> list[ReportRow]:
    """Score each candidate on `examples`.

    Args:
        calibrated: Whether to request the probabilities of constrained replies, which takes about
            as long again.
        workers: Number of concurrent requests.
        progress: Called with (candidate, done, total) after each reply.
        wrap: Wraps the completer of a candidate, for example in a cache.
    """
    # A hosted API limits requests per minute.
    workers = workers or (protocol.LOCAL_WORKERS if is_emojitune else 16)
    table = []
    for candidate in candidates:
        complete = completer(client, candidate, is_emojitune=is_emojitune, calibrated=calibrated)
        complete = wrap(candidate, complete)
        protocol.warm_up(complete, examples)
        report = partial(progress, candidate) if progress else None
        result = evaluate(complete, examples, vocabulary, workers=workers, progress=report)
        table.append(report_row(candidate.model, candidate.decoding, result))
    return table


def completer(
    client: OpenAI, candidate: Candidate, *, is_emojitune: bool, calibrated: bool = True
) -> Complete:
    """The callable from which `evaluate` gets the candidate's replies."""
    ask = partial(_ask, client, candidate.model, is_emojitune)
    if candidate.decoding == CONSTRAINED:
        return protocol.constrained(ask, labels=candidate.labels, calibrated=calibrated)
    return protocol.free(ask, text_tokens=candidate.text_tokens)


def _ask(
    client: OpenAI,
    model: str,
    is_emojitune: bool,
    messages: Sequence[Message],
    request: ReplyRequest,
) -> ReplyResponse:
    """Send a request through the SDK; to other servers without the fields that only emojitune has.

    Raises:
        ProviderError: The server rejected the request, or ignored a field of emojitune's.
    """
    extra: dict[str, Any] = {"decoding": request.decoding} if is_emojitune else {}
    if request.alternatives:
        extra["alternatives"] = request.alternatives
        extra |= {} if request.probabilities else {"probabilities": False}
        extra |= {"labels": request.labels} if request.labels else {}
    plain: Any = [{"role": message.role, "content": message.content} for message in messages]
    with provider_errors():
        completion: ChatCompletion = client.chat.completions.create(
            model=model,
            messages=plain,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            n=openai.omit if request.n == 1 else request.n,
            seed=openai.omit if request.seed is None else request.seed,
            logprobs=True if request.logprobs else openai.omit,
            extra_body=extra,
        )
    return ReplyResponse(
        tuple(choice.message.content or "" for choice in completion.choices),
        _logprob(completion),
        _alternatives(completion) if request.alternatives else (),
    )


def _logprob(completion: ChatCompletion) -> float | None:
    """Joint log-probability of the first reply's tokens; None if the API returns no logprobs."""
    logprobs = completion.choices[0].logprobs
    if logprobs is None or logprobs.content is None:
        return None
    return sum(token.logprob for token in logprobs.content)


def _alternatives(completion: ChatCompletion) -> tuple[tuple[str, float | None], ...]:
    alternatives = getattr(completion.choices[0], "alternatives", None)
    if not isinstance(alternatives, list):
        raise ProviderError(
            "The API sent no alternatives: constrained decoding is emojitune's own. "
            "Score this model with free decoding."
        )
    return tuple((one["content"], one.get("probability")) for one in alternatives)
