"""The shipped data: counts, schema, wording rules, no leakage, a complete emoji table.

`label_counts.csv` specifies the vocabulary and the number of examples of each label.
"""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from emojitune.dataset.checks.near_duplicates import (
    find_near_duplicates,
    find_near_duplicates_of,
    normalise,
)
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import check_file
from emojitune.labels import SYSTEM_PROMPT, is_label, label_meanings

ROOT = Path(__file__).parent.parent
TRAIN = ROOT / "data" / "emoji_ft_train.jsonl"
VALID = ROOT / "data" / "emoji_ft_valid.jsonl"
BOTH = pytest.mark.parametrize("path", [TRAIN, VALID], ids=["train", "valid"])

MAX_SIMILARITY = 0.6  # overlap of words from which two messages are near duplicates
MAX_SIMILARITY_TO_MEANING = 0.51  # overlap with a label's meaning that would be memorized
MAX_SAME_START = 3  # messages that may begin with the same three words


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions(path: Path) -> list[str]:
    return [row["messages"][1]["content"] for row in rows(path)]


def labels(path: Path) -> list[str]:
    return [row["messages"][2]["content"] for row in rows(path)]


def expected_counts() -> dict[str, int]:
    with (Path(__file__).parent / "label_counts.csv").open(encoding="utf-8") as file:
        return {row["label"]: int(row["count"]) for row in csv.DictReader(file)}


def test_the_frequency_table_itself() -> None:
    counts = expected_counts()
    assert (len(counts), sum(counts.values())) == (349, 569)
    assert all(map(is_label, counts))


def test_each_label_has_exactly_its_number_of_examples() -> None:
    assert Counter(labels(TRAIN)) == expected_counts()


def test_the_validation_file_has_150_examples_of_100_labels_or_more() -> None:
    held_out = labels(VALID)
    assert len(held_out) == 150
    assert len(set(held_out)) >= 100
    assert set(held_out) <= expected_counts().keys()


@BOTH
def test_schema(path: Path) -> None:
    for row in rows(path):
        assert list(row) == ["messages"]
        assert [list(message) for message in row["messages"]] == [["role", "content"]] * 3
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == SYSTEM_PROMPT
        assert is_label(row["messages"][2]["content"])


@BOTH
def test_the_checker_only_notes_that_labels_are_rare(path: Path) -> None:
    assert [issue.code for issue in check_file(path).issues] == ["labels_seen_once"]


@BOTH
def test_messages_have_2_to_18_words_and_no_label_in_them(path: Path) -> None:
    for question in questions(path):
        assert 2 <= len(question.split()) <= 18, question
        assert question == question.strip()
        assert not any(label in question for label in expected_counts()), question


def test_no_two_messages_are_equal() -> None:
    said = Counter(normalise(text) for text in questions(TRAIN) + questions(VALID))
    assert [text for text, count in said.items() if count > 1] == []


def test_no_two_messages_are_nearly_equal_within_or_across_the_files() -> None:
    texts = questions(TRAIN) + questions(VALID)
    near = find_near_duplicates(texts, threshold=MAX_SIMILARITY)
    assert [(texts[i], texts[j]) for i, j in near] == []


def test_no_sentence_frame_is_used_often() -> None:
    texts = questions(TRAIN) + questions(VALID)
    frames = Counter(" ".join(normalise(text).split()[:3]) for text in texts)
    assert [frame for frame, count in frames.items() if count > MAX_SAME_START] == []


def test_the_example_of_the_driving_test_is_there() -> None:
    assert dict(zip(questions(TRAIN), labels(TRAIN), strict=True))[
        "I just passed my driving test!"
    ] == ("(party)")


def test_the_emoji_table_is_complete() -> None:
    meanings = label_meanings()
    assert meanings.keys() == expected_counts().keys()
    for label, row in meanings.items():
        assert row.emoji, label
        assert not row.emoji.isascii(), label
        assert row.meaning.strip(), label
        assert row.keywords.strip(), label


def test_no_message_is_nearly_a_description_of_a_label() -> None:
    texts = questions(TRAIN) + questions(VALID)
    for column in ("meaning", "keywords"):
        known = [getattr(row, column) for row in label_meanings().values()]
        near = find_near_duplicates_of(known, texts, threshold=MAX_SIMILARITY_TO_MEANING)
        assert [(known[i], texts[j]) for i, j in near] == []


def test_the_emoji_table_next_to_the_data_is_the_shipped_one() -> None:
    with (ROOT / "data" / "emoji_labels.csv").open(encoding="utf-8") as file:
        beside = {row["label"]: row["emoji"] for row in csv.DictReader(file)}
    assert beside == {label: row.emoji for label, row in label_meanings().items()}


def test_the_training_file_is_a_closed_vocabulary() -> None:
    assert closed_vocabulary(check_file(TRAIN).examples) == tuple(sorted(expected_counts()))
