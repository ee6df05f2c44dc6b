"""Each scorer, on what it must accept and what it must not."""

from emojitune.evaluation.metrics import in_style, in_vocabulary, top_1, top_k


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
