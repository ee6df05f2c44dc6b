"""Rows of the table and their JSON shape."""

import json

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation.evaluate import Evaluation, evaluate
from emojitune.evaluation.intervals import Estimate
from emojitune.evaluation.metrics import METRICS, Reply
from emojitune.evaluation.report import (
    comparisons,
    format_estimate,
    report_row,
)


def scored(reply: Reply) -> Evaluation:
    example = TrainingExample((Message("user", "hi"), Message("assistant", "(wave)")))
    return evaluate(lambda _: reply, [example] * 3, ("(wave)",))


def test_row_cells_and_json() -> None:
    result = scored(Reply("(wave)", ("(wave)",), confidence=0.75))
    row = report_row("ft:x", "free", result)
    assert row.short == dict.fromkeys(("in style", "in vocabulary", "top-1", "top-5"), "100.0%")
    data = json.loads(json.dumps(row.to_dict()))
    assert (data["model"], data["decoding"], data["examples"]) == ("ft:x", "free", 3)
    for metric in METRICS:
        assert data[metric.name] == 1.0
        assert data["intervals"][metric.name] == [1.0, 1.0]
    assert data["expected_calibration_error"] == 0.25
    assert data["reliability_curve"] == [{"count": 3, "confidence": 0.75, "accuracy": 1.0}]
    assert len(data["replies"]) == 3
    assert data["replies"][0] == {
        "message": "hi",
        "expected": "(wave)",
        "reply": "(wave)",
        "alternatives": ["(wave)"],
        "confidence": 0.75,
        "seconds": None,
    }


def test_rows_with_the_same_decoding_are_compared() -> None:
    one = scored(Reply("(wave)"))
    rows = [report_row("new", "free", one), report_row("new", "constrained", one)]
    [compared] = comparisons(rows, [report_row("old", "free", scored(Reply("(x)")))])
    data = json.loads(json.dumps(compared.to_dict()))
    assert (data["model"], data["against"], data["decoding"]) == ("new", "old", "free")
    assert data["differences"]["top_1"] == 1
    assert data["intervals"]["top_1"] == [1, 1]
    assert data["p_values"]["in_style"] == 1


def test_estimates_are_formatted_for_people() -> None:
    assert format_estimate("top_1", Estimate(0.4733, 0.39, 0.56)) == "47.3% (39.0 to 56.0)"
    assert format_estimate("seconds_per_reply", Estimate(1.5, 1, 2)) == "1.500 (1.000 to 2.000)"
