"""Replies from a closed set of labels: the best one, or samples, exact over entire labels.

Free replies are in speculative.py. Token ids only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Generator as RandomGenerator
from torch import Tensor

from emojitune.inference.decoding.label_search import (
    LabelQuery,
    PerturbableScorer,
    ScoredLabel,
    StopRule,
    TopKFound,
    exhaustive,
    log_total,
    mass_covered,
    rank,
)
from emojitune.inference.decoding.logits_processors import (
    LogitsProcessor,
    processors_for,
    total_bias,
)
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.decoding.rejection_sampling import Tokens, sample_labels
from emojitune.inference.decoding.sampling import (
    TopLogprobs,
    gather_logprobs,
    sample_index,
    seeded_generator,
)
from emojitune.inference.decoding.sink import TokenSink
from emojitune.inference.engine.kv_cache import ForwardRequest, Prompt
from emojitune.inference.engine.scheduler import Decoder

# Alternatives are reported with their share of the entire set's probability: precise enough.
_SHARE_TOLERANCE = 0.01
_REJECTION_FROM = 0.5
_FULL_ROWS = 128  # of log-probabilities of all tokens that are in memory together


def reply_from_set(
    query: LabelQuery,
    params: SamplingParams,
    sink: TokenSink,
    *,
    alternatives: int = 0,
    probabilities: bool = True,
) -> Decoder[None]:
    """Entire labels of the set: the best one, or at a temperature samples from all of them.

    Sampling token by token among the allowed ones would renormalize at each branch, and prefer
    labels whose prefixes have few continuations. Logits processors act on entire labels, too: by
    the sum of their additions along each.

    Args:
        alternatives: How many of the best labels to report.
        probabilities: Whether to report the score of the entire set beside them.
    """
    processors = processors_for(params)
    generators = [seeded_generator(params.seed, index) for index in range(params.n)]
    sampled: list[Tokens | None] = [None] * params.n
    if not alternatives and params.temperature > 0.0 and params.top_p == 1.0 and not processors:
        sampled = yield from _sample_unranked(query, params, generators)
    ranking: list[ScoredLabel] = []
    if None in sampled:
        rules = _stop_rules(params, processors, alternatives, probabilities)
        ranking = yield from rank(query, rules)
        sink.rank(ranking[:alternatives], log_total(ranking) if probabilities else None)
    chosen = [
        _sample_ranked(ranking, params, processors, generator) if tokens is None else tokens
        for tokens, generator in zip(sampled, generators, strict=True)
    ]
    logprobs: dict[Tokens, list[TopLogprobs]] = {}
    if params.top_logprobs is not None:
        logprobs = yield from _token_logprobs(query.prompt, chosen, params.top_logprobs)
    for index, tokens in enumerate(chosen):
        _deliver(index, tokens, logprobs.get(tokens), params.max_tokens, sink)


def _sample_unranked(
    query: LabelQuery, params: SamplingParams, generators: Sequence[RandomGenerator]
) -> Decoder[list[Tokens | None]]:
    """Samples that need no ranking; None for those that do."""
    temperature, make_scorer = params.temperature, query.make_scorer
    if make_scorer is None and _REJECTION_FROM <= temperature <= 1.0:
        # Near the model's own distribution: at lower temperatures few samples would be accepted,
        # and the search ends soon.
        return (yield from sample_labels(query, temperature, generators))
    if make_scorer is None or params.n > 1:  # one ranking costs less than a search for each of n
        return [None] * params.n

    def noisy(state: Tensor) -> PerturbableScorer:
        return make_scorer(state).with_gumbel_noise(temperature, generators[0])

    [best, *_] = yield from rank(replace(query, make_scorer=noisy), [TopKFound(1)])
    return [best.tokens]


def _sample_ranked(
    ranking: Sequence[ScoredLabel],
    params: SamplingParams,
    processors: Sequence[LogitsProcessor],
    generator: RandomGenerator,
) -> Tokens:
    scores = [label.score + total_bias(label.tokens, processors) for label in ranking]
    index = sample_index(
        scores, temperature=params.temperature, top_p=params.top_p, generator=generator
    )
    return ranking[index].tokens


def _stop_rules(
    params: SamplingParams,
    processors: Sequence[LogitsProcessor],
    alternatives: int,
    probabilities: bool,
) -> list[StopRule]:
    """How far the search has to go."""
    if processors:
        return [exhaustive]  # a bias may lift any improbable label
    rules: list[StopRule] = [TopKFound(max(1, alternatives))]
    if params.temperature > 0.0:
        rules.append(mass_covered(params.temperature))
    if alternatives and probabilities:
        rules.append(mass_covered(1.0, tolerance=_SHARE_TOLERANCE))
    return rules


def _token_logprobs(
    prompt: Prompt, chosen: Sequence[Tokens], top: int
) -> Decoder[dict[Tokens, list[TopLogprobs]]]:
    """The model's log-probabilities at each token of the chosen labels, among all tokens.

    A search requests few numbers of a row, so the chosen labels alone are computed again: few rows
    at a time, since these are as long as the model's vocabulary. The tokens before them are
    computed each time, for kept ones of many long labels would not fit into the cache.
    """
    [start] = yield [ForwardRequest(prompt.path, prompt.uncached)]
    gathered = {tokens: [gather_logprobs(start.logprobs[-1], tokens[0], top)] for tokens in chosen}
    while counts := _next_counts(gathered):
        results = yield [
            ForwardRequest(
                start.path,
                tokens[: len(gathered[tokens]) - 1 + count],
                [None] * count,
                keep=False,
            )
            for tokens, count in counts.items()
        ]
        for (tokens, count), result in zip(counts.items(), results, strict=True):
            done = len(gathered[tokens])
            gathered[tokens] += [
                gather_logprobs(row, token, top)
                for row, token in zip(result.logprobs, tokens[done : done + count], strict=True)
            ]
    return gathered


def _next_counts(gathered: Mapping[Tokens, Sequence[TopLogprobs]]) -> dict[Tokens, int]:
    """Of labels, how many tokens' log-probabilities come next."""
    counts: dict[Tokens, int] = {}
    room = _FULL_ROWS
    for tokens, done in gathered.items():
        count = min(len(tokens) - len(done), room)
        if count:
            counts[tokens] = count
            room -= count
    return counts


def _deliver(
    index: int,
    tokens: Tokens,
    logprobs: Sequence[TopLogprobs] | None,
    max_tokens: int | None,
    sink: TokenSink,
) -> None:
    for place, token in enumerate(tokens[:max_tokens]):
        if not sink.token(index, token, logprobs[place] if logprobs else None):
            sink.end(index, "stop")
            return
    cut = max_tokens is not None and len(tokens) > max_tokens
    sink.end(index, "length" if cut else "stop")
