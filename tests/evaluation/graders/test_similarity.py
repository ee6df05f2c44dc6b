import time

import pytest

from emojitune.evaluation.graders.similarity import MEASURES
from emojitune.evaluation.rouge import no_pause

TEXT = "The cat sat on the mat today"


@pytest.mark.parametrize("name", [name for name in MEASURES if name != "meteor"])
def test_the_same_text_scores_one_and_a_foreign_one_nothing(name: str) -> None:
    assert MEASURES[name](TEXT, TEXT, no_pause) == pytest.approx(1)
    assert MEASURES[name]("vvzzxxqq", TEXT, no_pause) == 0
    assert MEASURES[name]("", "", no_pause) == 1
    assert MEASURES[name]("", TEXT, no_pause) == MEASURES[name](TEXT, "", no_pause) == 0


@pytest.mark.parametrize("name", list(MEASURES))
def test_scores_lie_between_nothing_and_one(name: str) -> None:
    for text in ("the cat", "(party)", "🎉", "today mat the on sat cat the", TEXT * 3):
        assert 0 <= MEASURES[name](text, TEXT, no_pause) <= 1


@pytest.mark.parametrize(
    ("name", "text", "reference", "score"),
    [
        ("fuzzy_match", "kitten", "sitting", 2 * 4 / 13),  # "ittn"
        ("fuzzy_match", "(party)", "(part)", 12 / 13),
        ("rouge_1", "the cat sat", "the cat ran off", 4 / 7),
        ("rouge_2", "the cat sat", "the cat ran off", 2 / 5),
        ("rouge_l", "the sat cat", "the cat ran off", 4 / 7),
        ("rouge_1", "The CAT", "the cat", 1),
        ("rouge_5", "a b c d e f", "a b c d e g", 1 / 2),
        # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, no quadruple of 1: that one counts a half
        ("bleu", "a b c x", "a b c d", (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
        ("bleu", "a b", "a b c d", 2.718281828459045 ** (1 - 4 / 2)),
        ("gleu", "a b c x", "a b c d", 6 / 10),
        ("gleu", "a b", "a b c d", 3 / 10),
        ("meteor", "the cat sat", "the cat sat", 1 - 0.5 / 27),
        ("meteor", "cats running", "cat runs", 1 - 0.5 / 8),  # by their stems
        ("meteor", "sat the cat", "the cat sat", 1 - 0.5 * (2 / 3) ** 3),  # in two chunks
        ("meteor", "dog", "cat", 0),
    ],
)
def test_scores_worked_out_by_hand(name: str, text: str, reference: str, score: float) -> None:
    assert MEASURES[name](text, reference, no_pause) == pytest.approx(score)


@pytest.mark.parametrize("name", list(MEASURES))
def test_long_texts_take_no_time(name: str) -> None:
    words = " ".join(str(number) for number in range(4000))
    begun = time.perf_counter()
    assert MEASURES[name](words, words[::-1], no_pause) < 1
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize("name", list(MEASURES))
def test_work_can_be_ended_in_a_pause(name: str) -> None:
    class EndedError(Exception): ...

    def end() -> None:
        raise EndedError

    with pytest.raises(EndedError):
        MEASURES[name](TEXT, TEXT, end)
