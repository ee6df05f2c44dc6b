"""A chat model: from requests to deltas of text, finish reasons and usage.

Between text and tokens: renders the prompt, checks lengths, picks the decoder, detokenizes. Knows
no HTTP: each edge gives requests and deltas the shape of its API.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from emojitune.errors import ConversationError, EmojituneError, ModelError
from emojitune.inference.decoding.constraint import Guide
from emojitune.inference.decoding.grammar import GrammarCompiler
from emojitune.inference.decoding.knn import KNNDatastore, KNNScorer
from emojitune.inference.decoding.label_sampling import reply_from_set
from emojitune.inference.decoding.label_search import PASS_TOKENS, LabelQuery, ScorerFactory
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.sink import TokenSink
from emojitune.inference.decoding.speculative import MAX_REJECTED, DraftProposer, reply_freely
from emojitune.inference.detokenizer import Detokenizer
from emojitune.inference.embeddings import Embedder
from emojitune.inference.engine.batch import ModelRunner
from emojitune.inference.engine.kv_cache import Prompt
from emojitune.inference.engine.scheduler import Decoder, Scheduler
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.label_sets import LabelSet, LabelSets
from emojitune.inference.tool_calls import with_format_notes
from emojitune.inference.types import (
    Embeddings,
    Generation,
    InferenceRequest,
    Listener,
    Usage,
)
from emojitune.models import adapter
from emojitune.models.packed_llama import LlamaAdapter
from emojitune.models.renderer import Renderer

DEFAULT_MAX_TOKENS = 1024
# Tokens of the replies to one request, and of all running requests: one leaves room for others.
_REPLY_TOKENS, _CACHE_TOKENS = 32_768, 65_536


class BaseModelRuntime:
    """A base model ready to run, shared by all models on it: weights, scheduler, tokenizer.

    Args:
        executor: The one thread that computes.
    """

    def __init__(
        self,
        runner: ModelRunner[LlamaAdapter],
        renderer: Renderer,
        context_length: int,
        executor: Executor,
    ) -> None:
        self.runner = runner
        self.renderer = renderer
        self.context_length = context_length
        self.executor = executor
        capacity = max(_CACHE_TOKENS, 2 * context_length)
        self.scheduler = Scheduler(runner, executor, capacity=capacity)
        self.max_shared_tokens = capacity - context_length - PASS_TOKENS

    @cached_property
    def grammar_compiler(self) -> GrammarCompiler:
        return GrammarCompiler(self.renderer.tokenizer, self.renderer.stop_ids)


class ChatModel:
    """A base model, or an adapter on it. Any number of threads may send requests at once.

    Args:
        vocabulary: The labels that the adapter was trained on; () where they were no closed set.
        datastore: Training examples whose replies are of the `vocabulary`.
    """

    def __init__(
        self,
        runtime: BaseModelRuntime,
        vocabulary: tuple[str, ...] = (),
        adapter: LlamaAdapter | None = None,
        datastore: KNNDatastore | None = None,
    ) -> None:
        self.runtime = runtime
        self.vocabulary = vocabulary
        self.adapter = adapter
        self.datastore = datastore
        self._renderer = runtime.renderer
        self._context_length = runtime.context_length
        self._embedder = Embedder(
            runtime.runner, adapter, runtime.renderer, runtime.context_length, runtime.scheduler
        )
        self._label_sets = LabelSets(runtime.renderer, runtime.max_shared_tokens)

    @property
    def bytes(self) -> int:
        """Memory of its weights and caches; without the base model's, where it is an adapter."""
        weights = self.runtime.runner.bytes if self.adapter is None else self.adapter.bytes
        datastore = self.datastore.bytes if self.datastore else 0
        return weights + datastore + self._label_sets.bytes

    @property
    def busy(self) -> bool:
        """Whether replies are computed with its weights; an adapter may go at any time."""
        return self.adapter is None and self.runtime.scheduler.busy

    def with_adapter(self, folder: Path) -> "ChatModel":
        """A fine-tuned model that shares all but its adapter with this base.

        Computes: call it in the executor's thread.

        Raises:
            ModelError: The adapter's folder is incomplete, or for another base model.
        """
        info, state = adapter.read(folder)
        tuned = self.runtime.runner.make_adapter(state, info.scale)
        datastore = KNNDatastore.load(folder, len(info.vocabulary))
        return ChatModel(self.runtime, info.vocabulary, tuned, datastore)

    def start(self, request: InferenceRequest, listener: Listener) -> Generation:
        """Begin to answer, and return at once.

        The executor's thread calls `listener` with deltas, and last with the usage or with the
        error that ended the replies.

        Raises:
            RequestFault: The prompt is too long, or the request contradicts the model.
        """
        labels = self._labels(request)
        self._check_bias(request.sampling.logit_bias)
        prompt_ids = self._render(request)
        room = self._room(len(prompt_ids), request.sampling.max_tokens)
        make_guide = self._make_guide(request)
        params = replace(
            request.sampling, max_tokens=self._max_tokens_of_each(request.sampling, room)
        )
        detokenizer = Detokenizer(self._renderer, request, listener)
        if labels is None:
            decoding = self._free_decoding(request, params, make_guide, detokenizer)
        else:
            decoding = self._label_decoding(labels, request, params, detokenizer)
        generation = Generation()

        def decode(prompt: Prompt) -> Decoder[None]:
            yield from decoding.decode(prompt)
            listener(Usage(len(prompt_ids), detokenizer.completion_tokens, prompt.cached))

        self.runtime.scheduler.submit(
            prompt_ids,
            decode,
            reserve=len(prompt_ids) + decoding.max_tokens,
            on_error=lambda error: listener(_as_emojitune_error(error)),
            cancelled=lambda: generation.cancelled,
            adapter=self.adapter,
            owner=request.owner,
        )
        return generation

    def count_tokens(self, request: InferenceRequest) -> int:
        """Tokens of the prompt, those of the chat template included."""
        return len(self._render(request))

    def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        cancelled: Callable[[], bool],
        owner: Hashable = None,
    ) -> Embeddings | None:
        """Embed texts, or their token ids; see inference/embeddings.py."""
        return self._embedder.embed(inputs, cancelled, owner)

    def _free_decoding(
        self,
        request: InferenceRequest,
        params: SamplingParams,
        make_guide: Callable[[], Guide] | None,
        sink: TokenSink,
    ) -> "_Decoding":
        assert params.max_tokens is not None
        proposer = None if request.structured else self._proposer
        return _Decoding(
            lambda prompt: reply_freely(
                prompt,
                params,
                self._renderer.stop_ids,
                sink,
                make_guide=make_guide,
                proposer=proposer,
            ),
            params.n * (params.max_tokens + MAX_REJECTED),
        )

    def _label_decoding(
        self,
        labels: LabelSet,
        request: InferenceRequest,
        params: SamplingParams,
        sink: TokenSink,
    ) -> "_Decoding":
        make_scorer = self._make_scorer(labels)
        return _Decoding(
            lambda prompt: reply_from_set(
                LabelQuery(prompt, labels.trie, self._renderer.stop_ids, make_scorer),
                params,
                sink,
                alternatives=request.alternatives,
                probabilities=request.probabilities,
            ),
            labels.search_tokens,
        )

    def _render(self, request: InferenceRequest) -> tuple[int, ...]:
        """Token ids of the prompt: (tokens,)."""
        messages = with_format_notes(request.messages, request.json_schema, request.tools)
        characters = sum(len(message.content) for message in messages)
        # A message has at least one token; and a prompt that is far too long is not even encoded.
        if len(messages) > self._context_length or self._renderer.exceeds(
            characters, self._context_length
        ):
            raise self._far_too_long(len(messages), characters)
        try:
            return self._renderer.render_prompt(messages)
        except ConversationError as error:
            raise RequestFault(Field.MESSAGES, error.message, code="invalid_value") from error

    def _make_guide(self, request: InferenceRequest) -> Callable[[], Guide] | None:
        if not request.structured:
            return None
        return self.runtime.grammar_compiler.compile(
            request.json_schema, request.tools, request.strict, request.owner
        )

    def _check_bias(self, bias: Mapping[int, float]) -> None:
        size = self.runtime.runner.vocabulary_size
        unknown = [token for token in bias if token >= size]
        if unknown:
            raise RequestFault(
                Field.LOGIT_BIAS,
                lambda name: (
                    f"Invalid key in '{name}': {unknown[0]}. Keys are ids of this model's tokens, "
                    f"0 to {size - 1}."
                ),
                code="invalid_value",
            )

    def _labels(self, request: InferenceRequest) -> LabelSet | None:
        """The labels of which the reply must be one; None where it is free."""
        if request.decoding == "labels" and not (self.vocabulary or request.labels):
            raise RequestFault(
                Field.DECODING,
                "decoding 'labels' needs a model with a closed vocabulary, and this one has none: "
                "its training replies were no small set. Leave `decoding` out, or send `labels`.",
                code="invalid_value",
            )
        vocabulary = self.vocabulary if request.decoding != "free" else ()
        if labels := request.labels or vocabulary:
            _refuse_structured(request)
            return self._label_sets.get(labels)
        if request.alternatives:
            raise RequestFault(
                Field.ALTERNATIVES,
                "alternatives are ranked among labels, and this reply is free. Leave them out, "
                "send `labels`, or use a model with a closed vocabulary and decoding 'labels'.",
                code="invalid_value",
            )
        return None

    def _make_scorer(self, labels: LabelSet) -> ScorerFactory | None:
        """Nearest-neighbour scores of labels; None where there are no examples of all of them."""
        datastore, numbers = self.datastore, self._label_numbers
        if datastore is None or not labels.ends.keys() <= numbers.keys():
            return None

        def make_scorer(state: Tensor) -> KNNScorer:
            similarity = datastore.similarity(state, len(numbers))
            ends = {end: similarity[numbers[label]] for label, end in labels.ends.items()}
            return KNNScorer(labels.trie, ends)

        return make_scorer

    @cached_property
    def _proposer(self) -> DraftProposer | None:
        """Drafts for free replies: the model's own labels, which it likely replies with."""
        if not self.vocabulary:
            return None
        labels = self._label_sets.get(self.vocabulary)
        return DraftProposer(labels.trie, self._make_scorer(labels))

    @cached_property
    def _label_numbers(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.vocabulary)}

    def _room(self, prompt_tokens: int, max_tokens: int | None) -> int:
        """How many tokens the context has left for a reply."""
        room = self._context_length - prompt_tokens
        if room < 1 or (max_tokens or 0) > room:
            raise self._too_long(prompt_tokens, max_tokens or 1)
        return room

    def _max_tokens_of_each(self, sampling: SamplingParams, room: int) -> int:
        """The token limit of each of `n` replies, which have to fit into the cache together."""
        n, requested = sampling.n, sampling.max_tokens
        share = max(_REPLY_TOKENS, self._context_length) // n
        if requested is not None and requested > share:
            raise RequestFault(
                Field.MAX_TOKENS,
                f"'n' replies of this model may have at most {share * n} tokens together, so "
                f"{n} may have {share} each, and you requested {requested}. Request fewer or "
                "shorter ones.",
                code="integer_above_max_value",
            )
        return requested or min(room, DEFAULT_MAX_TOKENS, share)

    def _far_too_long(self, messages: int, characters: int) -> RequestFault:
        return RequestFault(
            Field.MESSAGES,
            f"This model's maximum context length is {self._context_length} tokens. However, you "
            f"sent {messages} messages of {characters} characters, which are more. Please reduce "
            "the length of the messages.",
            code="context_length_exceeded",
        )

    def _too_long(self, prompt: int, completion: int) -> RequestFault:
        return RequestFault(
            Field.MESSAGES,
            f"This model's maximum context length is {self._context_length} tokens. However, you "
            f"requested {prompt + completion} tokens ({prompt} in the messages, {completion} in "
            "the completion). Please reduce the length of the messages or completion.",
            code="context_length_exceeded",
        )


@dataclass(frozen=True, slots=True)
class _Decoding:
    """How a request's replies are decoded, and how many tokens they take in the cache at most."""

    decode: Callable[[Prompt], Decoder[None]]
    max_tokens: int


def _refuse_structured(request: InferenceRequest) -> None:
    """Refuse forms that a reply cannot have: a label is neither JSON nor a call."""
    for field, value in (
        (Field.OUTPUT_FORMAT, request.json_schema),
        (Field.TOOLS, request.tools),
    ):
        if value is not None:
            raise RequestFault(
                field,
                lambda name: (
                    f"'{name}' contradicts a reply that is constrained to a set of labels, as "
                    "those of this model or of `labels` are. Leave it out, or send `decoding`: "
                    '"free" to let the model answer freely.'
                ),
                code="unsupported_parameter",
            )


def _as_emojitune_error(error: Exception) -> EmojituneError:
    if isinstance(error, EmojituneError):
        return error
    return ModelError(
        "The model could not compute this reply; the server's log says why. Try again, with a "
        "shorter prompt or fewer replies if it ran out of memory.",
        code="server_error",
    )
