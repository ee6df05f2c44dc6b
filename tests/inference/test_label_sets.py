import pytest

from emojitune.errors import ConversationError
from emojitune.inference import label_sets
from emojitune.inference.decoding.constraint import LabelTrie
from emojitune.inference.decoding.label_search import PASS_TOKENS
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.label_sets import LabelSet, LabelSets
from emojitune.models.loader import LoadedHF

LABELS = ("(dog)", "(party)", "emojis")


def test_a_set_is_tokenized_once(tiny: LoadedHF) -> None:
    sets = LabelSets(tiny.renderer, 1000)
    found = sets.get(LABELS)
    assert sets.get(tuple(LABELS)) is found
    assert list(found.ends) == list(LABELS)
    assert sets.bytes == found.bytes > 0


def test_the_sets_that_are_kept_have_a_bound_and_the_latest_is_kept(
    tiny: LoadedHF, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = LabelSets(tiny.renderer, 1000)
    first = sets.get(LABELS)
    monkeypatch.setattr(label_sets, "_MAX_BYTES", 2 * first.bytes)
    sets.get(LABELS[:2])
    assert sets.get(LABELS) is first
    sets.get((*LABELS[1:], "dog"))  # the least recently used one is dropped
    assert sets.get(LABELS) is first
    large = sets.get(tuple(f"(dog {number})" for number in range(100)))
    assert sets.bytes == large.bytes > 2 * first.bytes


def test_a_search_holds_what_labels_have_in_common_and_a_pass(tiny: LoadedHF) -> None:
    def of(*tokens: list[int]) -> LabelSet:
        trie = LabelTrie(tokens)
        return LabelSet(trie, {str(n): end for n, end in enumerate(trie.end_states)})

    assert of([1, 2, 3], [1, 2, 4, 5]).search_tokens == 2 + 5
    many = of(*([first, *[1] * 1000] for first in range(100)))
    assert many.search_tokens == PASS_TOKENS
    assert of([1] * 5000, [2] * 5000).search_tokens == 5000


def test_what_labels_have_in_common_has_a_bound(tiny: LoadedHF) -> None:
    sets = LabelSets(tiny.renderer, 3)
    sets.get(("dog", "party"))
    with pytest.raises(RequestFault, match="where 3 fit into the cache") as caught:
        sets.get(("my dog is tired", "my dog is tired."))
    assert caught.value.field == Field.LABELS


def test_a_label_that_the_tokenizer_refuses_is_at_fault_itself(
    tiny: LoadedHF, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(text: str) -> list[int]:
        raise ConversationError("This text takes too long.")

    monkeypatch.setattr(tiny.renderer, "encode_text", refuse)
    with pytest.raises(RequestFault, match="takes too long") as caught:
        LabelSets(tiny.renderer, 1000).get(LABELS)
    assert caught.value.field == Field.LABELS
