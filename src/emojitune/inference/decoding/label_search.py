"""The best labels of a closed set: a best-first search over the trie of their tokens.

Entire labels are compared, by the joint probability of their tokens. Token ids only.

    prompt ─ ( ─┬─ p ─┬─ arty ─ )      opened now: step `p`, with the chain `arty )`, a draft
                │     └─ izza ─ )      left open by that: step `izza`
                └─ d ─── og ─── )      left open by the prompt: step `d`

A path is opened by computing its step, and with it the chain of tokens that follow without a choice
or by a good guess. Every token that is allowed beside the chain becomes a path to be opened later,
in the order of the best score that it can still lead to.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count as counter
from math import exp, log
from typing import Protocol

from torch import Generator, Tensor

from emojitune.inference.decoding.constraint import Constraint, Draft, State, jump_forward
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, Path, Prompt
from emojitune.inference.engine.scheduler import Decoder

# Nats below the best open path: paths further off are likely given up before their last token.
_JUMP_MARGIN = 2.0
PASS_TOKENS = 4096  # of a search, at a time
_DRAFTED = 2  # paths of a pass that are extended beyond choices


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """A label of a closed set with the joint log-probability of its tokens.

    Where a longer label begins with it, the log-probability of ending there is part of it too;
    elsewhere nothing else may follow. Labels are compared by their `score`.
    """

    tokens: tuple[int, ...]
    log_probability: float
    score: float


class Scorer(Protocol):
    """The score of labels, from the model's log-probabilities of their paths.

    Scores are logarithms, up to a constant: at temperature 1 a label is sampled with the share that
    the exponential of its score has of the sum of all.
    """

    def score(self, log_probability: float, state: State) -> float:
        """The score of the label that ends in a state of the constraint."""
        ...

    def upper_bound(self, log_probability: float, state: State) -> float:
        """The most that any label through a state can score, given the path to it."""
        ...

    def mass_bound(self, log_probability: float, state: State) -> float:
        """The most that all labels through a state can score together, given the path to it."""
        ...

    def draft(self, state: State) -> int | None:
        """The likely next token at a state; None without a guess."""
        ...


class ModelScorer:
    """The model's log-probability alone; it only falls along a path, so it is its own bound."""

    def score(self, log_probability: float, state: State) -> float:
        return log_probability

    def upper_bound(self, log_probability: float, state: State) -> float:
        return log_probability

    def mass_bound(self, log_probability: float, state: State) -> float:
        return log_probability

    def draft(self, state: State) -> int | None:
        return None


MODEL_SCORER = ModelScorer()


class PerturbableScorer(Scorer, Protocol):
    """A scorer that knows all labels, and so can add noise to the score of each."""

    def with_gumbel_noise(self, temperature: float, generator: Generator) -> "PerturbableScorer":
        """A scorer whose best label is a sample from all of them at the temperature."""
        ...


ScorerFactory = Callable[[Tensor], PerturbableScorer]
"""From the hidden state (C,) of a prompt's last token to the scorer of its labels."""


@dataclass(frozen=True, slots=True)
class LabelQuery:
    """A prompt, and the closed set of labels that may be its reply.

    Attributes:
        stop_ids: The tokens that end a reply.
        make_scorer: Makes the scorer of the labels; None scores them by the model alone.
    """

    prompt: Prompt
    constraint: Constraint
    stop_ids: frozenset[int]
    make_scorer: ScorerFactory | None = None

    @property
    def stops(self) -> list[int]:
        """The stop ids in a fixed order, as rows of log-probabilities have them."""
        return sorted(self.stop_ids)


Bound = Callable[[float, State], float]
"""(log-probability of a path, its state) to a bound on the labels through it."""

StopRule = Callable[[Sequence[ScoredLabel], Sequence[float]], bool]
"""Whether a search may stop, given the labels found, best first, and the open paths' bounds."""


def exhaustive(_found: Sequence[ScoredLabel], _open_bounds: Sequence[float]) -> bool:
    """Never stops while a path is open."""
    return False


@dataclass(frozen=True, slots=True)
class TopKFound:
    """Stops when the `count` best labels are found: no open path can lead to a better one."""

    count: int

    def __call__(self, found: Sequence[ScoredLabel], open_bounds: Sequence[float]) -> bool:
        return len(found) >= self.count and found[self.count - 1].score >= max(open_bounds)


def log_total(labels: Sequence[ScoredLabel]) -> float:
    """The score of all labels, best first, together: the logarithm of the sum of exponentials."""
    top = labels[0].score
    return top + log(sum(exp(label.score - top) for label in labels))


def mass_covered(temperature: float, *, tolerance: float = 1e-3) -> StopRule:
    """Stops when all but a `tolerance` of the probability is found, at a temperature up to 1.

    At such a temperature the labels through a path weigh no more than its bound. Above 1 the many
    improbable labels count, and the search runs to the last.
    """

    def covered(found: Sequence[ScoredLabel], open_bounds: Sequence[float]) -> bool:
        if temperature > 1.0 or not found:
            return False
        top = found[0].score
        found_mass = sum(exp((label.score - top) / temperature) for label in found)
        open_mass = sum(exp(min(0.0, bound - top) / temperature) for bound in open_bounds)
        return open_mass <= tolerance * found_mass

    return covered


def rank(
    query: LabelQuery, rules: Sequence[StopRule], *, width: int = 3, widest: int = 16
) -> Decoder[list[ScoredLabel]]:
    """The labels of a set, best first, until all `rules` let the search stop.

    Best-first search. A bound only falls along a path, so no label that is still to be found beats
    the best open path: whatever the rules conclude from that is exact. Where they need the best
    labels alone, a path is bounded by its best label; else by the sum of all labels through it,
    which is far more where many labels begin alike. `width` paths are opened in one pass, because a
    pass over many tokens costs little more than over one, and twice as many in the next, up to
    `widest`: a search that is not over soon needs many. The promising ones jump forward through all
    tokens that follow without a choice, and the best of them through drafts, too: most drafts are
    right, and each saves a pass.
    """
    constraint, stops = query.constraint, query.stops
    found: list[ScoredLabel] = []
    order = counter()  # breaks ties, so that the heap never compares paths
    heap: list[tuple[float, int, OpenPath]] = []

    def take(paths: Sequence[OpenPath], results: Sequence[ForwardResult]) -> None:
        for path, result in zip(paths, results, strict=True):
            ended, children = path.expand(result, constraint, scorer)
            found.extend(ended)
            for child in children:
                heapq.heappush(heap, (-child.bound(bound), next(order), child))
        found.sort(key=lambda label: -label.score)

    # The scorer needs the prompt's hidden state, which the first pass computes: the root is drafted
    # without it.
    scorer: Scorer = MODEL_SCORER
    bound = _bound(scorer, rules)
    root = OpenPath.root(query)
    before = query.prompt.uncached
    request = root.request(constraint, stops, before)
    if query.make_scorer is None:
        take([root], (yield [request]))
    else:
        [result] = yield [replace(request, hidden_at=len(before) - 1)]
        assert result.hidden_state is not None
        scorer = query.make_scorer(result.hidden_state)
        bound = _bound(scorer, rules)
        take([root], [result])
    while heap:
        open_bounds = [-negative for negative, _, _ in heap]
        if all(rule(found, open_bounds) for rule in rules):
            break
        opened = [heapq.heappop(heap)[2] for _ in range(min(width, len(heap)))]
        promising = opened[0].bound(bound) - _JUMP_MARGIN
        opened = [
            path.jump_forward(constraint, scorer.draft if place < _DRAFTED else None)
            if path.bound(bound) > promising
            else path
            for place, path in enumerate(opened)
        ]
        requests = [path.request(constraint, stops) for path in opened]
        take(opened, (yield from forward_in_groups(requests)))
        yield []
        width = min(2 * width, widest)
    return found


def forward_in_groups(requests: Sequence[ForwardRequest]) -> Decoder[list[ForwardResult]]:
    """The results of forward requests, of which long ones do not share a pass.

    Most give their slots back after it: so a search over long labels needs few at a time.
    """
    results: list[ForwardResult] = []
    group: list[ForwardRequest] = []
    for request in requests:
        if group and sum(len(one.ids) for one in (*group, request)) > PASS_TOKENS:
            results += yield group
            group = []
        group.append(request)
    return results + (yield group)


def _bound(scorer: Scorer, rules: Sequence[StopRule]) -> Bound:
    only_best = all(isinstance(rule, TopKFound) for rule in rules)
    return scorer.upper_bound if only_best else scorer.mass_bound


@dataclass(frozen=True, slots=True)
class OpenPath:
    """A step from the end of a computed path, and the tokens that likely follow it.

    Attributes:
        path: The computed path.
        step: The step, one token; nothing at the root.
        state: The constraint's state after the step.
        tokens: The label so far, up to and including the step.
        log_probability: Joint log-probability up to and including the step.
        chain: Tokens after the step to be computed with it: without a choice the token that must
            follow, at a choice a draft. The alternatives to a draft can be opened later.
    """

    path: Path
    step: tuple[int, ...]
    state: State
    tokens: tuple[int, ...]
    log_probability: float
    chain: tuple[int, ...] = ()

    @staticmethod
    def root(query: LabelQuery) -> "OpenPath":
        """The beginning of every label: the prompt, and the tokens that all of them begin with."""
        constraint = query.constraint
        return OpenPath(query.prompt.path, (), constraint.start, (), 0.0).jump_forward(constraint)

    def jump_forward(self, constraint: Constraint, draft: Draft | None = None) -> "OpenPath":
        """The path with its chain up to the first choice, or beyond it while there is a draft."""
        return replace(self, chain=jump_forward(constraint, self.state, draft))

    def bound(self, bound: Bound) -> float:
        """The bound on the score of labels that begin so."""
        return bound(self.log_probability, self.state)

    def request(
        self, constraint: Constraint, stops: Sequence[int], before: Sequence[int] = ()
    ) -> ForwardRequest:
        """The pass that opens it: the tokens that may follow the step, and each token of the chain,
        the end among them.

        `before` are tokens of the prompt. After the last token of a label that cannot be extended
        nothing is left to learn, so it is not computed.
        """
        ids = [*before, *self.step, *self.chain]
        logprob_tokens = [
            [*(stops if constraint.can_end(state) else ()), *constraint.allowed_tokens(state)]
            for state in self._states(constraint)
        ]
        if logprob_tokens[-1]:
            return ForwardRequest(self.path, ids, logprob_tokens)
        has_siblings = any(len(tokens) > 1 for tokens in logprob_tokens)
        return ForwardRequest(self.path, ids[:-1], logprob_tokens[:-1], keep=has_siblings)

    def expand(
        self, result: ForwardResult, constraint: Constraint, scorer: Scorer = MODEL_SCORER
    ) -> tuple[list[ScoredLabel], list["OpenPath"]]:
        """The labels that end here or with one more token, and the steps to be opened.

        A row of log-probabilities for the step, and one for each token of the chain:

            row        of the stops, if the label may end here │ of the allowed tokens
            result     ended: a label                          │ chain's next: go on along it
                                                               │ others: ended or opened
        """
        ended: list[ScoredLabel] = []
        opened: list[OpenPath] = []
        tokens, log_probability = self.tokens, self.log_probability
        # The computed path ends with the token of the last row: a child at depth d keeps all but
        # the rows after d.
        start = len(result.path) - len(result.logprobs) + 1

        def end(tokens: tuple[int, ...], log_probability: float, state: State) -> None:
            score = scorer.score(log_probability, state)
            ended.append(ScoredLabel(tokens, log_probability, score))

        for depth, state in enumerate(self._states(constraint)):
            following = constraint.allowed_tokens(state)
            # Only the end may follow, so it costs no probability, and has no row.
            if not following:
                end(tokens, log_probability, state)
                break
            row = result.logprobs[depth]
            # Any of the stop tokens ends the label: their probabilities add up.
            stops = row[: len(row) - len(following)]
            if len(stops):
                end(tokens, log_probability + float(stops.logsumexp(0)), state)
            # The chain's own token leads to the next row; all others branch off here.
            gains = dict(zip(following, row[len(stops) :].tolist(), strict=True))
            taken = gains.pop(self.chain[depth]) if depth < len(self.chain) else 0.0
            for token, gain in gains.items():
                after, longer = constraint.advance(state, token), (*tokens, token)
                # A branch with nothing after it is a label already: no pass could add to it.
                if constraint.allowed_tokens(after):
                    path = Path(result.path.slots[: start + depth])
                    opened.append(OpenPath(path, (token,), after, longer, log_probability + gain))
                else:
                    end(longer, log_probability + gain, after)
            tokens = (*tokens, *self.chain[depth : depth + 1])
            log_probability += taken
        return ended, opened

    def _states(self, constraint: Constraint) -> list[State]:
        """The state after the step, and those after each token of the chain."""
        states = [self.state]
        for token in self.chain:
            states.append(constraint.advance(states[-1], token))
        return states
