"""The label trie as a constraint."""

from label_tokens import LABELS

from emojitune.inference.decoding.constraint import label_trie


def test_a_trie_knows_the_next_tokens_and_the_ends_of_labels() -> None:
    trie = label_trie(LABELS)
    assert set(trie.allowed_tokens(trie.start)) == {30, 36}
    state = trie.advance(trie.advance(trie.start, 30), 33)
    assert trie.can_end(state)
    assert trie.allowed_tokens(state) == (35,)
    assert not trie.can_end(trie.start)
