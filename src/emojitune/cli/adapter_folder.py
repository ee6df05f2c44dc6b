"""An adapter folder as callables that `evaluate` gets replies from: no server, no store."""

from collections.abc import Sequence
from pathlib import Path

from emojitune.dataset.example import Message
from emojitune.errors import InvalidRequestError
from emojitune.evaluation import protocol
from emojitune.evaluation.evaluate import Complete
from emojitune.evaluation.protocol import CONSTRAINED, FREE, Ask, ReplyRequest, ReplyResponse
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.local_client import LocalClient, open_adapter
from emojitune.inference.types import Delta, InferenceRequest
from emojitune.settings import Settings


def is_adapter_folder(name: str) -> bool:
    """Whether `name` is an adapter folder rather than the name of a model.

    Raises:
        InvalidRequestError: It is a folder without an adapter.
    """
    if not Path(name).is_dir():
        return False
    if not (Path(name) / "adapter_config.json").is_file():
        raise InvalidRequestError(
            f"{name} is a folder, but holds no adapter: there is no adapter_config.json in it. "
            "Name the folder of one adapter, or a model."
        )
    return True


def adapter_completers(
    folder: Path, settings: Settings, *, text_tokens: int | None = None
) -> dict[str, Complete]:
    """Completers by decoding; constrained only if the adapter has a closed vocabulary.

    `text_tokens`: as in `Candidate`.
    """
    client = open_adapter(folder, settings)
    ask = _asking(client)
    completers = {FREE: protocol.free(ask, text_tokens=text_tokens)}
    if client.vocabulary:
        completers[CONSTRAINED] = protocol.constrained(ask)
    return completers


def _asking(client: LocalClient) -> Ask:
    def ask(messages: Sequence[Message], request: ReplyRequest) -> ReplyResponse:
        sampling = SamplingParams(
            n=request.n,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            top_logprobs=0 if request.logprobs else None,
        )
        replies = client.ask(
            InferenceRequest(
                messages,
                sampling,
                decoding=request.decoding,
                labels=request.labels,
                alternatives=request.alternatives,
                probabilities=request.probabilities,
            )
        )
        first, *_ = replies
        return ReplyResponse(
            tuple(map(_text, replies)),
            sum(token.logprob for delta in first for token in delta.logprobs),
            tuple((one.content, one.probability) for one in first[-1].alternatives),
        )

    return ask


def _text(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)
