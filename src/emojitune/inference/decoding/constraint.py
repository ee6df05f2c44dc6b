"""Constraints: which tokens may come next.

Token ids in, token ids out: knows neither text nor emoji. A `Constraint` has states that are plain
values, so a search may hold any number at once; the label trie is one. A `Guide` follows a
single reply, as a parser does; the masks of a grammar are one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

State = int

Draft = Callable[[State], int | None]
"""The likely next token at a state; None without a guess."""


class Constraint(Protocol):
    """Three questions, each about a state; the first state is `start`."""

    @property
    def start(self) -> State: ...

    def allowed_tokens(self, state: State) -> Sequence[int]:
        """The tokens that may follow; empty only where the reply must end."""
        ...

    def advance(self, state: State, token: int) -> State:
        """The state after an allowed token."""
        ...

    def can_end(self, state: State) -> bool:
        """Whether the reply may end here."""
        ...


class Guide(Protocol):
    """The tokens that may come next along one reply."""

    def allowed(self, size: int) -> Tensor:
        """A mask (size,): True for each token that may come next, stop tokens among them."""
        ...

    def advance(self, token: int) -> bool:
        """Take a token that was allowed; False when only the end may follow it."""
        ...

    def forced(self) -> Sequence[int]:
        """The text that follows in any case, as its usual tokens; nothing where there is a choice.

        Other tokens may spell the same text.
        """
        ...


def jump_forward(
    constraint: Constraint, state: State, draft: Draft | None = None
) -> tuple[int, ...]:
    """The tokens that follow a state without a choice, and beyond choices as far as there is a
    draft; they end where the reply may end.

    As jump-forward decoding in SGLang (Zheng et al., 2024): a pass computes all of them at once.
    """
    tokens: list[int] = []
    while not constraint.can_end(state):
        following = constraint.allowed_tokens(state)
        forced = following[0] if len(following) == 1 else None
        token = draft(state) if forced is None and draft else forced
        if token is None:
            break
        tokens.append(token)
        state = constraint.advance(state, token)
    return tuple(tokens)


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """The labels of a closed set, as a trie of their tokens. Immutable.

    `children[state]` maps a token to the next state; `ends` are the states that spell a label.
    """

    children: tuple[dict[int, State], ...]
    ends: frozenset[State]
    start: State = 0

    def allowed_tokens(self, state: State) -> Sequence[int]:
        return tuple(self.children[state])

    def advance(self, state: State, token: int) -> State:
        return self.children[state][token]

    def can_end(self, state: State) -> bool:
        return state in self.ends


def label_trie(labels: Sequence[Sequence[int]]) -> LabelTrie:
    """The trie of labels that are given as token ids."""
    children: list[dict[int, State]] = [{}]
    ends = set()
    for tokens in labels:
        state = 0
        for token in tokens:
            if token not in children[state]:
                children[state][token] = len(children)
                children.append({})
            state = children[state][token]
        ends.add(state)
    return LabelTrie(tuple(children), frozenset(ends))
