"""Messages and parameters to deltas of text, finish reason and usage.

Between text and the engine: renders, checks lengths, picks the constraint, turns tokens back into
text. No HTTP: `server/chat/routes.py` gives all this OpenAI's shape.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial, reduce

from torch import Tensor

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError, InvalidRequestError, ModelError
from emojitune.inference.decoding.constraint import Guide, LabelTrie, State, label_trie
from emojitune.inference.decoding.grammar import Vocabulary
from emojitune.inference.decoding.knn import KNNDatastore, KNNScorer
from emojitune.inference.decoding.label_sampling import reply_from_set
from emojitune.inference.decoding.label_search import LabelQuery, ScorerFactory
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.speculative import MAX_REJECTED, DraftProposer, reply_freely
from emojitune.inference.detokenizer import Detokenizer
from emojitune.inference.embeddings import Embedder
from emojitune.inference.engine.batch import ModelRunner
from emojitune.inference.engine.kv_cache import Prompt
from emojitune.inference.engine.scheduler import Decoder, Scheduler
from emojitune.inference.tool_calls import with_format_notes
from emojitune.inference.types import ChatParameters, Embeddings, Generation, Listener, Usage
from emojitune.models.packed_llama import LlamaAdapter
from emojitune.models.renderer import Renderer

DEFAULT_MAX_TOKENS = 1024


class BaseModelRuntime:
    """What the models on one base share: weights, engine, tokenizer. `executor` does the work."""

    def __init__(
        self,
        forward: ModelRunner[LlamaAdapter],
        renderer: Renderer,
        context_length: int,
        executor: Executor,
    ) -> None:
        self.forward = forward
        self.renderer = renderer
        self.context_length = context_length
        self.executor = executor
        self.scheduler = Scheduler(forward, executor)

    @cached_property
    def grammar_vocabulary(self) -> Vocabulary:
        return Vocabulary(self.renderer.tokenizer, self.renderer.stop_ids)


class ChatModel:
    """A model that replies: a base, or an adapter on it. Any number of threads may ask at once."""

    def __init__(
        self,
        base: BaseModelRuntime,
        vocabulary: tuple[str, ...] = (),
        adapter: LlamaAdapter | None = None,
        neighbours: KNNDatastore | None = None,
    ) -> None:
        """`neighbours` are examples whose replies are of the `vocabulary`."""
        self.base = base
        self.vocabulary = vocabulary
        self.adapter = adapter
        self.neighbours = neighbours
        self._renderer = base.renderer
        self._context_length = base.context_length
        self._embedder = Embedder(
            base.forward, adapter, base.renderer, base.context_length, base.executor
        )
        self._set = lru_cache(maxsize=16)(partial(_ClosedSet.of, base.renderer))

    @property
    def bytes(self) -> int:
        """What it takes in memory; without the base, where it lies beside one."""
        own = self.base.forward.bytes if self.adapter is None else self.adapter.bytes
        return own + (self.neighbours.bytes if self.neighbours else 0)

    @property
    def busy(self) -> bool:
        """Whether replies are made with its weights; an adapter alone is not missed."""
        return self.adapter is None and self.base.scheduler.busy

    def start(
        self, messages: Sequence[Message], parameters: ChatParameters, listener: Listener
    ) -> Generation:
        """Begin to reply, and return at once.

        The executor's thread calls `listener` with Deltas and last with the Usage, or with the
        error that ended it.

        Raises:
            InvalidRequestError: The prompt is too long, or parameters contradict the model.
        """
        closed = self._closed_set(parameters)
        self._check_bias(parameters)
        ids = self._prompt(messages, parameters)
        room = self._context_length - len(ids)
        if room < 1 or (parameters.max_tokens or 0) > room:
            raise self._too_long(len(ids), parameters.max_tokens or 1)
        # Schemas are in the prompt: one that takes long to look at never comes so far.
        make_guide = self._guides(parameters)
        params = SamplingParams(
            n=parameters.n,
            max_tokens=self._most_tokens(parameters.max_tokens, parameters.n, room),
            temperature=parameters.temperature,
            top_p=parameters.top_p,
            seed=parameters.seed,
            frequency_penalty=parameters.frequency_penalty,
            presence_penalty=parameters.presence_penalty,
            logit_bias=parameters.logit_bias,
            top_logprobs=parameters.top_logprobs,
        )
        detokenizer = Detokenizer(self._renderer, parameters, listener)
        generation = Generation()

        def request(prompt: Prompt) -> Decoder[None]:
            stop_ids = self._renderer.stop_ids
            if closed is None:
                yield from reply_freely(
                    prompt, params, stop_ids, detokenizer, make_guide=make_guide, proposer=proposer
                )
            else:
                yield from reply_from_set(
                    LabelQuery(prompt, closed.trie, stop_ids, make_scorer),
                    params,
                    detokenizer,
                    alternatives=parameters.alternatives,
                    probabilities=parameters.probabilities,
                )
            listener(Usage(len(ids), detokenizer.completion_tokens, prompt.cached))

        make_scorer = self._weigher(closed)
        proposer = self._proposer(parameters)
        if closed is None:
            assert params.max_tokens is not None
            reply_tokens = params.n * (params.max_tokens + MAX_REJECTED)
        else:
            reply_tokens = len(closed.trie.children)
        self.base.scheduler.submit(
            ids,
            request,
            reserve=len(ids) + reply_tokens,
            on_error=lambda error: listener(_as_ours(error)),
            cancelled=lambda: generation.cancelled,
            adapter=self.adapter,
            owner=parameters.owner,
        )
        return generation

    def count_tokens(self, messages: Sequence[Message], parameters: ChatParameters) -> int:
        """Tokens of the prompt that these messages make, those of the chat template among them."""
        return len(self._prompt(messages, parameters))

    def embed(
        self, inputs: Sequence[str | Sequence[int]], cancelled: Callable[[], bool]
    ) -> Embeddings | None:
        """Texts, or their token ids, as vectors; see inference/embeddings.py."""
        return self._embedder.embed(inputs, cancelled)

    def _prompt(self, messages: Sequence[Message], parameters: ChatParameters) -> tuple[int, ...]:
        known = with_format_notes(messages, parameters.json_schema, parameters.tools)
        characters = sum(len(message.content) for message in known)
        # A message has a token at least; and what is far too long is not even encoded.
        if len(known) > self._context_length or self._renderer.exceeds(
            characters, self._context_length
        ):
            raise self._far_too_long(len(known), characters)
        try:
            return self._renderer.render_prompt(known)
        except ModelError as error:  # not the model is at fault: the order of the messages is
            raise InvalidRequestError(
                error.message, code="invalid_value", param="messages"
            ) from error

    def _guides(self, parameters: ChatParameters) -> Callable[[], Guide] | None:
        if parameters.json_schema is None and parameters.tools is None:
            return None
        return self.base.grammar_vocabulary.guides(
            parameters.json_schema, parameters.tools, parameters.strict
        )

    def _check_bias(self, parameters: ChatParameters) -> None:
        size = self.base.forward.vocabulary_size
        unknown = [token for token in parameters.logit_bias if token >= size]
        if unknown:
            raise InvalidRequestError(
                f"Invalid key in 'logit_bias': {unknown[0]}. Keys are ids of this model's tokens, "
                f"0 to {size - 1}.",
                code="invalid_value",
                param="logit_bias",
            )

    def _closed_set(self, parameters: ChatParameters) -> "_ClosedSet | None":
        if parameters.decoding == "labels" and not (self.vocabulary or parameters.labels):
            raise InvalidRequestError(
                "decoding 'labels' needs a model with a closed vocabulary, and this one has none: "
                "its training replies were no small set. Leave `decoding` out, or send `labels`.",
                code="invalid_value",
                param="decoding",
            )
        closed = self.vocabulary if parameters.decoding != "free" else ()
        if labels := parameters.labels or closed:
            _refuse_forms(parameters)
            return self._set(labels)
        if parameters.alternatives:
            raise InvalidRequestError(
                "alternatives are ranked among labels, and this reply is free. Leave them out, "
                "send `labels`, or use a model with a closed vocabulary and decoding 'labels'.",
                code="invalid_value",
                param="alternatives",
            )
        return None

    def _weigher(self, closed: "_ClosedSet | None") -> ScorerFactory | None:
        """How replies of a set are weighed; None where there are no examples of all of them."""
        neighbours, numbers = self.neighbours, self._numbers
        if neighbours is None or closed is None or not closed.ends.keys() <= numbers.keys():
            return None

        def make_scorer(state: Tensor) -> KNNScorer:
            similarity = neighbours.similarity(state, len(numbers))
            ends = {end: similarity[numbers[label]] for label, end in closed.ends.items()}
            return KNNScorer(closed.trie, ends)

        return make_scorer

    def _proposer(self, parameters: ChatParameters) -> DraftProposer | None:
        """Drafts for a free reply: the model's labels, unless the request demands another form."""
        formed = parameters.json_schema is not None or parameters.tools is not None
        if not self.vocabulary or formed:
            return None
        known = self._set(self.vocabulary)
        return DraftProposer(known.trie, self._weigher(known))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.vocabulary)}

    def _most_tokens(self, asked: int | None, n: int, room: int) -> int:
        """The most tokens of each of `n` replies, which together have to fit into the cache."""
        share = max(self.base.scheduler.capacity, self._context_length) // n
        if asked is not None and asked > share:
            raise InvalidRequestError(
                f"'n' replies of this model may have at most {share * n} tokens together, so "
                f"{n} may have {share} each, and you asked for {asked}. Ask for fewer or shorter "
                "ones.",
                code="integer_above_max_value",
                param="max_tokens",
            )
        return asked or min(room, DEFAULT_MAX_TOKENS, share)

    def _far_too_long(self, messages: int, characters: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"This model's maximum context length is {self._context_length} tokens. However, you "
            f"sent {messages} messages of {characters} characters, which are more. Please reduce "
            "the length of the messages.",
            code="context_length_exceeded",
            param="messages",
        )

    def _too_long(self, prompt: int, completion: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"This model's maximum context length is {self._context_length} tokens. However, you "
            f"requested {prompt + completion} tokens ({prompt} in the messages, {completion} in "
            "the completion). Please reduce the length of the messages or completion.",
            code="context_length_exceeded",
            param="messages",
        )


@dataclass(frozen=True, slots=True)
class _ClosedSet:
    """Labels as a trie of tokens, and the state in which each of them ends."""

    trie: LabelTrie
    ends: dict[str, State]

    @staticmethod
    def of(renderer: Renderer, labels: tuple[str, ...]) -> "_ClosedSet":
        tokens = [renderer.encode_text(label) for label in labels]
        trie = label_trie(tokens)
        ends = (reduce(trie.advance, one, trie.start) for one in tokens)
        return _ClosedSet(trie, dict(zip(labels, ends, strict=True)))


def _refuse_forms(parameters: ChatParameters) -> None:
    """A reply that is one of a set is neither JSON nor a call."""
    for param, asked in (
        ("response_format", parameters.json_schema is not None),
        ("tools", parameters.tools is not None),
    ):
        if asked:
            raise InvalidRequestError(
                f"'{param}' contradicts a reply that is held to a set of labels, as those of this "
                'model or of `labels` are. Leave it out, or send `decoding`: "free" to let the '
                "model answer freely.",
                code="unsupported_parameter",
                param=param,
            )


def _as_ours(error: Exception) -> EmojituneError:
    if isinstance(error, EmojituneError):
        return error
    return ModelError(
        "The model could not compute this reply; the server's log says why. Try again, with a "
        "shorter prompt or fewer replies if it ran out of memory.",
        code="server_error",
    )
