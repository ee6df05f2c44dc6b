"""The label trie as a constraint."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from label_tokens import LABELS

from emojitune.inference.decoding.constraint import LabelTrie


def test_a_trie_knows_the_next_tokens_and_the_ends_of_labels() -> None:
    trie = LabelTrie(LABELS)
    assert set(trie.allowed_tokens(trie.start)) == {30, 36}
    state = trie.advance(trie.advance(trie.start, 30), 33)
    assert trie.can_end(state)
    assert trie.allowed_tokens(state) == (35,)
    assert not trie.can_end(trie.start)


def next_tokens(labels: Sequence[tuple[int, ...]], start: tuple[int, ...]) -> list[int]:
    """The tokens after `start` in the labels that begin so, each once, in order."""
    longer = [label for label in labels if len(label) > len(start) and label[: len(start)] == start]
    return list(dict.fromkeys(label[len(start)] for label in longer))


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple), min_size=1))
def test_every_beginning_of_a_label_is_a_state(labels: list[tuple[int, ...]]) -> None:
    trie = LabelTrie(labels)
    states = {(): trie.start}
    for label in labels:
        for depth, token in enumerate(label):
            states[label[: depth + 1]] = trie.advance(states[label[:depth]], token)
    assert len(set(states.values())) == len(states) == trie.tokens + 1
    for start, state in states.items():
        assert list(trie.allowed_tokens(state)) == next_tokens(labels, start)
        assert trie.can_end(state) == (start in labels)
    assert trie.end_states == [states[label] for label in labels]


@given(st.lists(st.lists(st.integers(1, 3), max_size=6), min_size=1))
def test_each_edge_comes_before_the_one_that_it_follows(labels: list[list[int]]) -> None:
    trie = LabelTrie(labels)
    seen: set[int] = set()
    for edge in trie.edges:
        assert set(trie.following(edge).values()) <= seen
        seen.add(edge)
    assert trie.edges[-1] == trie.edge(trie.start)


def test_memory_grows_with_the_labels_and_hardly_with_their_length() -> None:
    short = LabelTrie([[number, 1] for number in range(100)])
    long = LabelTrie([[number, *[1] * 1000] for number in range(100)])
    assert len(long.edges) == len(short.edges) == 101
    assert long.bytes - short.bytes == 4 * 100 * 999
