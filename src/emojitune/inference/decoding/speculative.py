"""Speculative decoding of free replies: several tokens in one pass, where they can be drafted.

A pass computes a token and the draft that follows it. Each token is sampled as it would be without
a draft, from the model's log-probabilities after the tokens before it; where it differs from the
draft, the rest of the draft is rejected. So replies are equal, and only passes are fewer:
speculative decoding (Leviathan et al., 2023) with a draft that takes no model. Token ids only.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from emojitune.inference.decoding import logits_processors
from emojitune.inference.decoding.constraint import Constraint, Draft, Guide, State, jump_forward
from emojitune.inference.decoding.label_search import ScorerFactory
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.sampling import (
    TopLogprobs,
    gather_logprobs,
    sample,
    seeded_generator,
)
from emojitune.inference.decoding.sink import TokenSink
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, Path, Prompt
from emojitune.inference.engine.scheduler import Decoder

# Drafted tokens of one pass, and rejected ones of a reply after which drafting stops: they
# stay in the cache until the reply ends.
_MAX_DRAFT, _REJECTION_LIMIT = 32, 64
MAX_REJECTED = _MAX_DRAFT + _REJECTION_LIMIT
_DRAFTED_TOGETHER = 128  # by the replies to one request: each has a row of all log-probabilities


@dataclass(frozen=True, slots=True)
class DraftProposer:
    """Drafts for a model's free replies: labels of the set that it was tuned on.

    Without `make_scorer`, only tokens that follow without a choice are drafted.
    """

    constraint: Constraint
    make_scorer: ScorerFactory | None = None


def reply_freely(
    prompt: Prompt,
    params: SamplingParams,
    stop_ids: frozenset[int],
    sink: TokenSink,
    *,
    make_guide: Callable[[], Guide] | None = None,
    proposer: DraftProposer | None = None,
) -> Decoder[None]:
    """Any tokens that the guide allows, until the model or the sink ends the reply, or it has
    `max_tokens`.

    Args:
        params: With a number of `max_tokens`.
        make_guide: Makes the guide of one reply, whose forced tokens are drafted; None allows all
            tokens.
        proposer: Drafts the replies that have no guide.
    """
    sequences = [
        _Sequence(
            index,
            params,
            make_guide() if make_guide else None,
            _DraftState(proposer.constraint) if proposer else None,
        )
        for index in range(params.n)
    ]
    # The prompt is computed once, with the draft of the first reply: none has a token yet, so that
    # all have the same draft.
    before, draft = prompt.uncached, sequences[0].draft()
    make_scorer = proposer.make_scorer if proposer else None
    hidden_at = len(before) - 1 if make_scorer else None
    request = ForwardRequest(
        prompt.path, [*before, *draft], [None] * (1 + len(draft)), hidden_at=hidden_at
    )
    [first] = yield [request]
    if make_scorer and first.hidden_state is not None:
        scorer = make_scorer(first.hidden_state)
        for sequence in sequences:
            sequence.draft_choices(scorer.draft)
    running = [(sequence, request, first) for sequence in sequences]
    while running:
        pending = []
        for sequence, request, result in running:
            following = _accept(sequence, request, result, stop_ids, sink)
            if following is not None:
                pending.append((sequence, following))
            yield []
        if not pending:
            return
        results = yield [request for _, request in pending]
        running = [(*item, result) for item, result in zip(pending, results, strict=True)]


def _accept(
    sequence: "_Sequence",
    request: ForwardRequest,
    result: ForwardResult,
    stop_ids: frozenset[int],
    sink: TokenSink,
) -> ForwardRequest | None:
    """Sample tokens as far as they confirm the draft, and one more; then the request of the next
    pass, None where the reply has ended."""
    drafted = request.ids[len(request.ids) - request.logprob_rows + 1 :]
    for place, row in enumerate(result.logprobs):
        token, logprobs = sequence.sample(row)
        if (
            token in stop_ids
            or not sink.token(sequence.index, token, logprobs)
            or sequence.is_complete(token)
        ):
            sink.end(sequence.index, "stop")
            return None
        if not sequence.room:
            sink.end(sequence.index, "length")
            return None
        if place == len(drafted) or drafted[place] != token:
            break
    rejected = len(drafted) - place
    sequence.rejected += rejected
    draft, slots = sequence.draft(), result.path.slots[: len(result.path) - rejected]
    return ForwardRequest(Path(slots), [token, *draft], [None] * (1 + len(draft)))


class _DraftState:
    """A reply's state in the drafted set, for as long as it stays in it."""

    def __init__(self, constraint: Constraint) -> None:
        self.choices: Draft | None = None
        self._constraint = constraint
        self._state: State | None = constraint.start

    def advance(self, token: int) -> None:
        if self._state is not None:
            allowed = token in self._constraint.allowed_tokens(self._state)
            self._state = self._constraint.advance(self._state, token) if allowed else None

    def draft(self) -> tuple[int, ...]:
        if self._state is None:
            return ()
        return jump_forward(self._constraint, self._state, self.choices)


class _Sequence:
    """One free reply in the making. `rejected` counts the drafted tokens that it did not take."""

    def __init__(
        self,
        index: int,
        params: SamplingParams,
        guide: Guide | None,
        draft_state: _DraftState | None,
    ) -> None:
        assert params.max_tokens is not None, "a free reply needs a limit"
        self.index = index
        self.rejected = 0
        self._params = params
        self._max_tokens = params.max_tokens
        self._max_draft = min(_MAX_DRAFT, _DRAFTED_TOGETHER // params.n)
        self._processors = logits_processors.processors_for(params)
        self._draft_state = draft_state
        self._generator = seeded_generator(params.seed, index)
        self._guide = guide
        self._counts: Counter[int] = Counter()

    @property
    def room(self) -> int:
        """How many tokens may follow."""
        return self._max_tokens - self._counts.total()

    def sample(self, row: Tensor) -> tuple[int, TopLogprobs | None]:
        """The next token from log-probabilities (V,), and the model's own log-probabilities where
        they are to be reported."""
        processed = logits_processors.apply(row, self._processors, self._counts)
        if self._guide is not None:
            processed = logits_processors.mask(processed, self._guide.allowed(len(processed)))
        token = sample(
            processed,
            temperature=self._params.temperature,
            top_p=self._params.top_p,
            generator=self._generator,
        )
        self._counts[token] += 1
        if self._draft_state is not None:
            self._draft_state.advance(token)
        top = self._params.top_logprobs
        return token, None if top is None else gather_logprobs(row, token, top)

    def is_complete(self, token: int) -> bool:
        """Whether nothing may follow a sampled token."""
        return self._guide is not None and not self._guide.advance(token)

    def draft_choices(self, choices: Draft) -> None:
        """Draft tokens at the choices of the set, too."""
        if self._draft_state is not None:
            self._draft_state.choices = choices

    def draft(self) -> Sequence[int]:
        """The drafted tokens after the reply so far."""
        drafted: Sequence[int] = ()
        if self.rejected < _REJECTION_LIMIT:
            if self._guide is not None:
                drafted = self._guide.forced()
            elif self._draft_state is not None:
                drafted = self._draft_state.draft()
        return drafted[: min(self._max_draft, self.room - 1)]
