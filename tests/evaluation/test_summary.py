"""Estimates of an evaluation, and comparisons of two."""

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation.evaluate import Evaluation, evaluate
from emojitune.evaluation.metrics import METRICS, Reply
from emojitune.evaluation.summary import (
    CALIBRATION_ERROR,
    SECONDS,
    TITLES,
    compare,
    estimate_metrics,
    reliability,
)


def example(question: str, reply: str) -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


EXAMPLES = [example(str(number), f"({number % 3})") for number in range(12)]


def of(reply: Reply, examples: list[TrainingExample] = EXAMPLES) -> Evaluation:
    return evaluate(lambda _: reply, examples, ("(0)",))


def test_every_metric_has_an_estimate_and_an_interval_around_it() -> None:
    estimates = estimate_metrics(of(Reply("(0)", ("(0)", "(1)"), confidence=0.5, seconds=2.0)))
    assert list(estimates) == [name for name in TITLES if name != "rouge_l"]
    assert estimates["top_1"].value == pytest.approx(1 / 3)
    assert estimates["top_5"].value == pytest.approx(2 / 3)
    assert estimates["mean_reciprocal_rank"].value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert estimates[CALIBRATION_ERROR].value == pytest.approx(0.5 - 1 / 3)
    assert estimates[SECONDS].value == pytest.approx(2.0)
    assert all(0 <= one.low <= one.value <= one.high for one in estimates.values())
    assert estimates["top_1"].low < estimates["top_1"].high


def test_a_share_of_all_replies_is_exactly_one() -> None:
    many = [example(str(number), "(0)") for number in range(150)]
    estimates = estimate_metrics(of(Reply("(0)", ("(0)",), seconds=1.0), many))
    for name in ("top_1", "top_5", "in_style", "in_vocabulary"):
        assert (estimates[name].low, estimates[name].value, estimates[name].high) == (1.0, 1.0, 1.0)


def test_numbers_that_a_reply_lacks_have_no_estimate() -> None:
    known, unknown = Reply("(0)", confidence=0.5, seconds=1.0), Reply("(0)")
    replies = iter([known, *[unknown] * 11])
    evaluation = evaluate(lambda _: next(replies), EXAMPLES, ("(0)",), workers=1)
    assert list(estimate_metrics(evaluation)) == [metric.name for metric in METRICS]
    assert reliability(evaluation) == []


def test_text_has_the_metrics_of_text() -> None:
    texts = [example("a", "It is a long way."), example("b", "No.")]
    evaluation = evaluate(lambda _: Reply("It is a way"), texts, ())
    assert not evaluation.of_labels
    assert list(estimate_metrics(evaluation)) == ["top_1", "rouge_l"]
    assert estimate_metrics(evaluation)["top_1"].value == 0
    assert estimate_metrics(evaluation)["rouge_l"].value == pytest.approx((2 * 4 / (4 + 5) + 0) / 2)


def test_a_comparison_has_differences_and_p_values() -> None:
    right = iter(Reply(one.reply, (one.reply,)) for one in EXAMPLES)
    perfect = evaluate(lambda _: next(right), EXAMPLES, ("(0)",), workers=1)
    better = compare(perfect, of(Reply("(0)", ("(0)",))))
    assert better["top_1"].estimate.value == pytest.approx(2 / 3)
    assert better["top_1"].p_value == pytest.approx(2 / 2**8, abs=0.004)
    assert better["in_style"].estimate.value == 0
    assert better["in_style"].p_value == 1
    worse = compare(of(Reply("(0)", ("(0)",))), perfect)
    assert worse["top_1"].estimate.value == pytest.approx(-2 / 3)


def test_the_same_example_twice_is_one_observation() -> None:
    once = estimate_metrics(of(Reply("(0)"), EXAMPLES))
    twice = estimate_metrics(of(Reply("(0)"), EXAMPLES * 2))
    assert twice["top_1"].low == pytest.approx(once["top_1"].low)
