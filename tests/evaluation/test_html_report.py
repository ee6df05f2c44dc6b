"""The HTML report: complete, self-contained and escaped; and the mistakes that it lists."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation.evaluate import Evaluation, evaluate
from emojitune.evaluation.html_report import html_report
from emojitune.evaluation.metrics import Reply
from emojitune.evaluation.mistakes import Confusion, confusions, wrong_replies
from emojitune.evaluation.report import comparisons, report_row

ANSWERS = {
    "I won": ("(party)", Reply("(party)", ("(party)",), 0.75)),
    "so tired": ("(yawn)", Reply("(sleepy)", ("(sleepy)", "(yawn)"), 0.5)),
    "tired again": ("(yawn)", Reply("(sleepy)", ("(sleepy)",), 0.25)),
    "<b>hi & bye</b>": ("(wave)", Reply("<script>", ("<script>",), 0.875)),
}


def evaluation() -> Evaluation:
    examples = [
        TrainingExample((Message("user", question), Message("assistant", expected)))
        for question, (expected, _) in ANSWERS.items()
    ]

    def complete(messages: Sequence[Message]) -> Reply:
        return ANSWERS[messages[-1].content][1]

    return evaluate(complete, examples, ("(party)", "(yawn)", "(wave)"))


def page() -> str:
    rows = [report_row(name, "free", evaluation()) for name in ("ft:new", "old")]
    return html_report("ft:new on file", rows, comparisons(rows[:1], rows[1:]))


class Balance(HTMLParser):
    """Tracks open elements: every element must be closed."""

    EMPTY = frozenset({"meta", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def test_wrong_replies_begin_with_the_most_confident() -> None:
    questions = [one.example.question for one in wrong_replies(evaluation())]
    assert questions == ["<b>hi & bye</b>", "so tired", "tired again"]


def test_confusions_begin_with_the_most_frequent() -> None:
    assert confusions(evaluation()) == [
        Confusion("(yawn)", "(sleepy)", 2, 0.75),
        Confusion("(wave)", "<script>", 1, 0.875),
    ]


def test_the_page_is_complete_and_self_contained() -> None:
    balance = Balance()
    balance.feed(page())
    assert balance.open == []
    assert {"svg", "table", "style", "polyline"} <= balance.seen
    assert not {"script", "link", "img", "b"} & balance.seen
    assert not re.search(r"https?://|url\(", page())
    assert "prefers-color-scheme: dark" in page()


def test_the_page_shows_every_mistake_beside_what_was_expected() -> None:
    assert (
        "<td>so tired</td><td>(yawn) 🥱</td><td>(sleepy)</td><td>0.50</td><td>(yawn)</td>" in page()
    )
    assert "<td>&lt;b&gt;hi &amp; bye&lt;/b&gt;</td><td>(wave) 👋</td>" in page()
    assert "3 wrong replies" in page()
    assert "ft:new, free less old, free" in page()


def test_the_same_evaluation_is_the_same_page() -> None:
    assert page() == page()
