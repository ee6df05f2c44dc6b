"""Rejection sampling: labels of a closed set, sampled without the probability of each of them.

Sampling token by token among the allowed ones over-samples labels whose prefixes leave little
probability mass allowed: by the product of the mass that is allowed at each branch after the first.
So a sample is accepted with that probability, else rejected, which makes it exact (von Neumann,
1951). A tuned model rarely leaves its labels, and few samples are rejected. Token ids only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import torch

from emojitune.inference.decoding.constraint import Constraint
from emojitune.inference.decoding.label_search import (
    LabelQuery,
    OpenPath,
    ScoredLabel,
    forward_in_groups,
)
from emojitune.inference.decoding.sampling import sample_index
from emojitune.inference.engine.kv_cache import ForwardResult
from emojitune.inference.engine.scheduler import Decoder

# Proposals for each reply that are made side by side: their tokens are computed in the same passes.
_SIDE_BY_SIDE = 4
_ROUNDS = 3

Tokens = tuple[int, ...]


def sample_labels(
    query: LabelQuery, temperature: float, generators: Sequence[torch.Generator]
) -> Decoder[list[Tokens | None]]:
    """A label for each generator; None where every proposal was rejected.

    Args:
        temperature: Above 0 and at most 1: beyond it, the allowed tokens could have a mass above 1,
            which cannot be a probability of acceptance.
    """
    assert 0.0 < temperature <= 1.0, "no probability to accept a sample with"
    constraint, stops = query.constraint, query.stops
    root = OpenPath.root(query)
    [result] = yield [root.request(constraint, stops, before=query.prompt.uncached)]
    branches: dict[Tokens, _Branch] = {(): _Branch.of(root, result, constraint, temperature)}
    labels: list[Tokens | None] = [None] * len(generators)
    for _ in range(_ROUNDS):
        missing = [index for index, label in enumerate(labels) if label is None]
        proposals = {
            index: [_Proposal(branches[()], generators[index]) for _ in range(_SIDE_BY_SIDE)]
            for index in missing
        }
        while pending := _pending(proposals):
            opened = [path.jump_forward(constraint) for path in pending.values()]
            requests = [path.request(constraint, stops) for path in opened]
            results = yield from forward_in_groups(requests)
            for tokens, path, result in zip(pending, opened, results, strict=True):
                branches[tokens] = _Branch.of(path, result, constraint, temperature)
            for proposal in (proposal for several in proposals.values() for proposal in several):
                proposal.advance(branches)
        for index, several in proposals.items():
            # The first in order, not the first to end: short labels would win.
            accepted = (proposal.label for proposal in several if proposal.label)
            labels[index] = next(accepted, None)
    return labels


@dataclass(frozen=True, slots=True)
class _Branch:
    """A point where labels part: labels that end there, and paths to longer ones.

    `log_allowed` is the log-probability, at the temperature, of all of these together, and of the
    tokens that were forced on the way here.
    """

    options: Sequence[ScoredLabel | OpenPath]
    log_weights: Sequence[float]
    log_allowed: float

    @staticmethod
    def of(
        path: OpenPath, result: ForwardResult, constraint: Constraint, temperature: float
    ) -> "_Branch":
        ended, opened = path.expand(result, constraint)
        options: list[ScoredLabel | OpenPath] = [*ended, *opened]
        weights = [option.log_probability / temperature for option in options]
        total = max(weights) + log(sum(exp(weight - max(weights)) for weight in weights))
        return _Branch(options, weights, total - path.log_probability / temperature)


class _Proposal:
    """One proposed label: the path that has to be computed next, or the label when accepted.

    Neither, when it was rejected.
    """

    def __init__(self, root: _Branch, generator: torch.Generator) -> None:
        self.pending: OpenPath | None = None
        self.label: Tokens | None = None
        self._generator = generator
        # Accepted while the mass allowed along the way exceeds a uniform number, sampled up front;
        # the mass that is lost at the root is lost to all labels alike, and does not count.
        self._log_left = log(1.0 - float(torch.rand(1, generator=generator)))
        self._choose(root)

    def advance(self, branches: dict[Tokens, _Branch]) -> None:
        """Choose at each computed branch, until the next one is not computed yet."""
        while self.pending is not None and self.pending.tokens in branches:
            branch = branches[self.pending.tokens]
            self.pending = None
            self._log_left -= branch.log_allowed
            if self._log_left <= 0.0:
                self._choose(branch)

    def _choose(self, branch: _Branch) -> None:
        index = sample_index(
            branch.log_weights, temperature=1.0, top_p=1.0, generator=self._generator
        )
        option = branch.options[index]
        if isinstance(option, ScoredLabel):
            self.label = option.tokens
        else:
            self.pending = option


def _pending(proposals: dict[int, list[_Proposal]]) -> dict[Tokens, OpenPath]:
    """The paths that some proposal needs, each once."""
    paths = [proposal.pending for several in proposals.values() for proposal in several]
    return {path.tokens: path for path in paths if path is not None}
