import pytest

from emojitune.inference import label_sets
from emojitune.inference.label_sets import LabelSets
from emojitune.models.loader import LoadedHF

LABELS = ("(dog)", "(party)", "emojis")


def test_a_set_is_tokenized_once(tiny: LoadedHF) -> None:
    sets = LabelSets(tiny.renderer)
    found = sets.get(LABELS)
    assert sets.get(tuple(LABELS)) is found
    assert list(found.ends) == list(LABELS)
    assert sets.bytes == found.bytes > 0


def test_the_sets_that_are_kept_have_a_bound_and_the_latest_is_kept(
    tiny: LoadedHF, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = LabelSets(tiny.renderer)
    first = sets.get(LABELS)
    monkeypatch.setattr(label_sets, "_MAX_BYTES", 2 * first.bytes)
    sets.get(LABELS[:2])
    assert sets.get(LABELS) is first
    sets.get((*LABELS[1:], "dog"))  # the least recently used one is dropped
    assert sets.get(LABELS) is first
    large = sets.get(tuple(f"(dog {number})" for number in range(100)))
    assert sets.bytes == large.bytes > 2 * first.bytes
