"""Constraints: which tokens may come next. The label trie is one.

Token ids in, token ids out: knows neither text nor emoji. States are plain values, so a search
may hold as many at once as it likes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

State = int


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


def ahead(
    constraint: Constraint, state: State, guess: Callable[[State], int | None] | None = None
) -> tuple[int, ...]:
    """What follows a state: the tokens up to where a choice is, or beyond it as far as there is a
    guess; no further than where the reply may end."""
    found: list[int] = []
    while not constraint.can_end(state):
        following = constraint.allowed_tokens(state)
        forced = following[0] if len(following) == 1 else None
        token = guess(state) if forced is None and guess else forced
        if token is None:
            break
        found.append(token)
        state = constraint.advance(state, token)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class LabelTrie:
    """The replies of a closed set, as a trie of their tokens. Immutable.

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
