"""Constraints: which tokens may come next.

Token ids in, token ids out: knows neither text nor emoji. A `Constraint` has states that are plain
values, so a search may hold any number at once; the label trie is one. A `Guide` follows a
single reply, as a parser does; the masks of a grammar are one.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
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


_DEPTHS = 2**20  # more than a label has tokens
_EDGE_BYTES = 600


class LabelTrie:
    """The labels of a closed set, as a radix tree of their tokens (Morrison, 1968).

    An edge holds all tokens up to the next choice, so that memory grows with the number of labels,
    and hardly with their length:

        ( ──┬── p ──┬── arty )         four edges, and not eleven; a state is an edge and a depth,
            │       └── izza )         the number of tokens before it
            └── dog )
    """

    start: State = 0

    def __init__(self, labels: Sequence[Sequence[int]]) -> None:
        """The trie of labels that are given as token ids."""
        # By edge: a label that runs through it, the depth of its end, whether a label ends there,
        # and the edges that follow, by their first token.
        self._labels: list[array[int]] = []
        self._depths: list[int] = []
        self._ends: list[bool] = []
        self._following: list[dict[int, int]] = []
        self._add_edge(array("i"), 0, following={})
        self.tokens = 0
        """Tokens of all labels, common beginnings counted once."""
        self.end_states: list[State] = [self._insert(array("i", label)) for label in labels]
        """The state in which each label ends."""
        self.longest = max(map(len, labels), default=0)
        """Tokens of the longest label."""
        self.bytes = _EDGE_BYTES * len(self._depths) + 4 * sum(map(len, labels))
        """Memory, about."""

    @property
    def edges(self) -> Sequence[int]:
        """All edges; each comes before the one that it follows, so that 0 is the last."""
        return sorted(range(len(self._depths)), key=self._depths.__getitem__, reverse=True)

    @property
    def tokens_before_choices(self) -> int:
        """Tokens after which labels part, sooner or later: those of all edges but the last ones."""
        return self.tokens - sum(
            self._depths[last] - self._depths[edge]
            for edge, following in enumerate(self._following)
            for last in following.values()
            if not self._following[last]
        )

    def edge(self, state: State) -> int:
        """The edge of a state: all its states lead to the same labels."""
        return state // _DEPTHS

    def following(self, edge: int) -> Mapping[int, int]:
        """The edges after an edge, by their first token."""
        return self._following[edge]

    def allowed_tokens(self, state: State) -> Sequence[int]:
        edge, depth = divmod(state, _DEPTHS)
        if depth < self._depths[edge]:
            return (self._labels[edge][depth],)
        return tuple(self._following[edge])

    def advance(self, state: State, token: int) -> State:
        edge, depth = divmod(state, _DEPTHS)
        if depth < self._depths[edge]:
            if self._labels[edge][depth] != token:
                raise KeyError(token)
            return state + 1
        return self._following[edge][token] * _DEPTHS + depth + 1

    def can_end(self, state: State) -> bool:
        edge, depth = divmod(state, _DEPTHS)
        return depth == self._depths[edge] and self._ends[edge]

    def _insert(self, label: "array[int]") -> State:
        parent = edge = depth = 0
        while True:
            other, end = self._labels[edge], self._depths[edge]
            while depth < min(end, len(label)) and other[depth] == label[depth]:
                depth += 1
            if depth < end:  # the label parts from the edge before its end
                edge = self._split(parent, edge, depth)
            if depth == len(label):
                self._ends[edge] = True
                return edge * _DEPTHS + depth
            following = self._following[edge]
            if label[depth] not in following:
                self.tokens += len(label) - depth
                following[label[depth]] = last = self._add_edge(label, len(label), following={})
                self._ends[last] = True
                return last * _DEPTHS + len(label)
            parent, edge = edge, following[label[depth]]

    def _split(self, parent: int, edge: int, depth: int) -> int:
        """Cut an edge at a depth; its lower part stays the same edge, the upper one is new."""
        label = self._labels[edge]
        upper = self._add_edge(label, depth, following={label[depth]: edge})
        self._following[parent][label[self._depths[parent]]] = upper
        return upper

    def _add_edge(self, label: "array[int]", depth: int, *, following: dict[int, int]) -> int:
        self._labels.append(label)
        self._depths.append(depth)
        self._ends.append(False)
        self._following.append(following)
        return len(self._depths) - 1
