"""Messages and parameters to deltas of text, finish reason and usage.

Between text and the engine: renders, checks lengths, picks the constraint, turns tokens back into
text. No HTTP: `server/chat.py` gives all this OpenAI's shape.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import lru_cache

from emojitune.chat.constraint import LabelTrie, label_trie
from emojitune.chat.decoding import Sampling, Scored, reply_freely, reply_from_set
from emojitune.chat.embedding import Embedder
from emojitune.chat.engine import Engine, Prompt, Request
from emojitune.chat.reply import (
    Alternative,
    ChatParameters,
    Delta,
    Embedded,
    FinishReason,
    Generation,
    Listener,
    Usage,
)
from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError, InvalidRequestError, ModelError
from emojitune.models.chat_template import Renderer
from emojitune.models.loader import LoadedModel

DEFAULT_MAX_TOKENS = 1024


class ChatModel:
    """A model that replies. Any number of threads may ask at once; `executor` does the work."""

    def __init__(self, model: LoadedModel, executor: Executor) -> None:
        self.vocabulary = model.vocabulary
        self._renderer = model.renderer
        self._context_length = model.context_length
        self._engine = Engine(model.module, model.precision.device, executor)
        self._embedder = Embedder(model, executor)
        self._trie = lru_cache(maxsize=16)(self._make_trie)

    def start(
        self, messages: Sequence[Message], parameters: ChatParameters, listener: Listener
    ) -> Generation:
        """Begin to reply, and return at once.

        The executor's thread calls `listener` with Deltas and last with the Usage, or with the
        error that ended it.

        Raises:
            InvalidRequestError: The prompt is too long, or labels are asked for and there are none.
        """
        ids = self._prompt(messages, parameters)
        room = self._context_length - len(ids)
        if room < 1 or (parameters.max_tokens or 0) > room:
            raise self._too_long(len(ids), parameters.max_tokens or 1)
        sampling = Sampling(
            n=parameters.n,
            max_tokens=parameters.max_tokens or min(room, DEFAULT_MAX_TOKENS),
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            seed=parameters.seed,
        )
        trie = self._constraint(parameters)
        writer = _Writer(self._renderer, parameters, listener)
        generation = Generation()

        def request(prompt: Prompt) -> Request:
            stop_ids = self._renderer.stop_ids
            if trie is None:
                yield from reply_freely(ids, prompt, sampling, stop_ids, writer.token, writer.end)
            else:
                yield from reply_from_set(
                    ids,
                    prompt,
                    trie,
                    sampling,
                    stop_ids,
                    writer.token,
                    writer.end,
                    writer.rank,
                    alternatives=parameters.alternatives,
                )
            listener(Usage(len(ids), writer.tokens_written, prompt.cached))

        grows = len(trie.children) if trie else sampling.n * sampling.max_tokens
        self._engine.submit(
            ids,
            request,
            reserve=len(ids) + grows,
            on_error=lambda error: listener(_as_ours(error)),
            cancelled=lambda: generation.cancelled,
        )
        return generation

    def count_tokens(self, messages: Sequence[Message], parameters: ChatParameters) -> int:
        """Tokens of the prompt that these messages make, those of the chat template among them."""
        return len(self._prompt(messages, parameters))

    def embed(
        self, inputs: Sequence[str | Sequence[int]], cancelled: Callable[[], bool]
    ) -> Embedded | None:
        """Texts, or their token ids, as vectors; see chat/embedding.py."""
        return self._embedder.embed(inputs, cancelled)

    def _prompt(self, messages: Sequence[Message], parameters: ChatParameters) -> tuple[int, ...]:
        try:
            return self._renderer.render_prompt(messages)
        except ModelError as error:  # not the model is at fault: the order of the messages is
            raise InvalidRequestError(
                error.message, code="invalid_value", param="messages"
            ) from error

    def _constraint(self, parameters: ChatParameters) -> LabelTrie | None:
        if parameters.labels:
            return self._trie(parameters.labels)
        if parameters.decoding == "labels" and not self.vocabulary:
            raise InvalidRequestError(
                "decoding 'labels' needs a model with a closed vocabulary, and this one has none: "
                "its training replies were no small set. Leave `decoding` out, or send `labels`.",
                code="invalid_value",
                param="decoding",
            )
        if parameters.decoding != "free" and self.vocabulary:
            return self._trie(self.vocabulary)
        if parameters.alternatives:
            raise InvalidRequestError(
                "alternatives are ranked among labels, and this reply is free. Leave them out, "
                "send `labels`, or use a model with a closed vocabulary and decoding 'labels'.",
                code="invalid_value",
                param="alternatives",
            )
        return None

    def _make_trie(self, labels: tuple[str, ...]) -> LabelTrie:
        return label_trie([self._renderer.encode_text(label) for label in labels])

    def _too_long(self, prompt: int, completion: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"This model's maximum context length is {self._context_length} tokens. However, you "
            f"requested {prompt + completion} tokens ({prompt} in the messages, {completion} in "
            "the completion). Please reduce the length of the messages or completion.",
            code="context_length_exceeded",
            param="messages",
        )


class _Writer:
    """Tokens of each reply to text, told as soon as it is certain."""

    def __init__(self, renderer: Renderer, parameters: ChatParameters, listener: Listener) -> None:
        self._renderer = renderer
        self._stop = parameters.stop
        self._listener = listener
        self._tokens: list[list[int]] = [[] for _ in range(parameters.n)]
        self._told = [0] * parameters.n  # characters
        self._alternatives: tuple[Alternative, ...] = ()

    @property
    def tokens_written(self) -> int:
        return sum(map(len, self._tokens))

    def rank(self, ranking: list[Scored]) -> None:
        self._alternatives = tuple(
            Alternative(self._renderer.decode(scored.tokens), scored.log_probability)
            for scored in ranking
        )

    def token(self, index: int, token: int) -> bool:
        """Take a token; False when a stop sequence has come up."""
        self._tokens[index].append(token)
        text = self._renderer.decode(self._tokens[index])
        if self._stop_at(text) is not None:
            return False
        self._tell(index, text[: self._certain(text)])
        return True

    def end(self, index: int, reason: FinishReason) -> None:
        """Tell what was held back, and the finish reason."""
        text = self._renderer.decode(self._tokens[index])
        stop = self._stop_at(text)
        text = text if stop is None else text[:stop]
        rest, self._told[index] = text[self._told[index] :], len(text)
        self._listener(Delta(index, rest, reason, self._alternatives))

    def _tell(self, index: int, text: str) -> None:
        fresh = text[self._told[index] :]
        if fresh:
            self._told[index] = len(text)
            self._listener(Delta(index, fresh))

    def _stop_at(self, text: str) -> int | None:
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        return min(found, default=None)

    def _certain(self, text: str) -> int:
        """Characters that no later token can take back.

        Not certain are an unfinished character, and an end that may grow into a stop sequence.
        """
        certain = len(text.rstrip("\ufffd"))
        for stop in self._stop:
            for size in range(min(len(stop) - 1, certain), 0, -1):
                if text[:certain].endswith(stop[:size]):
                    certain -= size
                    break
        return certain


def _as_ours(error: Exception) -> EmojituneError:
    if isinstance(error, EmojituneError):
        return error
    return ModelError(
        "The model could not compute this reply; the server's log says why. Try again, with a "
        "shorter prompt or fewer replies if it ran out of memory.",
        code="server_error",
    )
