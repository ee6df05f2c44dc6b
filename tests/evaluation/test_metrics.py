"""Each metric, on replies that it must accept and replies that it must not."""

import pytest

from emojitune.evaluation.metrics import (
    METRICS,
    Reply,
    in_style,
    in_vocabulary,
    reciprocal_rank,
    top_1,
    top_k,
)


def test_in_style() -> None:
    assert in_style(" (party)\n")
    for text in ("party", "(party) (wave)", "(Party)", "(par ty)", "🎉", ""):
        assert not in_style(text)


def test_in_vocabulary() -> None:
    assert in_vocabulary(" (party)", {"(party)"})
    assert not in_vocabulary("(nosuchlabel)", {"(party)"})


def test_top_1() -> None:
    assert top_1(" (party)", "(party)")
    assert not top_1("(partying)", "(party)")


def test_top_k_looks_at_the_first_k_only() -> None:
    best = ["(a)", "(b)", "(c)", "(d)", "(e)", "(f)"]
    assert top_k(best, "(e)")
    assert not top_k(best, "(f)")
    assert top_k(best, "(a)", k=1)
    assert not top_k([], "(a)")


def test_reciprocal_rank() -> None:
    best = ["(a)", "(b)", " (c)\n", "(d)", "(e)", "(f)"]
    assert reciprocal_rank(best, "(a)") == 1
    assert reciprocal_rank(best, "(c)") == pytest.approx(1 / 3)
    assert reciprocal_rank(best, "(f)") == 0
    assert reciprocal_rank([], "(a)") == 0


def test_labels_with_the_same_emoji_are_equal_in_metrics_of_emoji() -> None:
    # (wave) and (wavinghand) both show a waving hand; (nosuch) and (other) show nothing.
    reply = Reply("(wave)", ("(wave)", "(nosuch)", "(yawn)"))

    def values(expected: str) -> dict[str, float]:
        return {metric.name: float(metric.score(reply, expected, ())) for metric in METRICS}

    hand, yawn, other = values("(wavinghand)"), values("(yawningface)"), values("(other)")
    assert (hand["top_1"], hand["top_5"], hand["mean_reciprocal_rank"]) == (0, 0, 0)
    assert (hand["same_emoji_top_1"], hand["same_emoji_mean_reciprocal_rank"]) == (1, 1)
    assert (yawn["same_emoji_top_1"], yawn["same_emoji_top_3"]) == (0, 1)
    assert yawn["same_emoji_mean_reciprocal_rank"] == pytest.approx(1 / 3)
    assert other["same_emoji_top_5"] == 0
