"""What is doubtful about the labels of a file: their style, their spelling, their frequency.

A file that answers in prose has no labels, and nothing is said of it.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set

from emojitune.dataset.checks.spelling import Spelling, letters_and_digits
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.rules import Issue, abbreviate_lines, make_issue, preview
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.labels import is_label, label_meanings

_HOUSE_STYLE = 0.8  # share of labels in parentheses from which other replies are strangers
_RARE = 2  # examples of a label that may be a slip
_TIMES = 3  # how much more frequent the label is that was meant
_TEN_TIMES = 10
_MOST_NAMED = 5


def check_labels(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    """Replies out of style, labels that may be slips of others, and how they are spread."""
    replies = _replies(examples, lines)
    labels = parenthesized_labels(examples)
    if labels:
        yield from _off_style(replies, labels)
    elif closed_vocabulary(examples):
        labels = Counter(reply for _, reply in replies)
    else:
        return
    yield from _near_misses(replies, labels)
    yield from _frequencies(labels)


def check_unseen_labels(
    examples: Sequence[TrainingExample],
    lines: Sequence[int],
    training: Sequence[TrainingExample],
) -> Iterator[Issue]:
    """Labels of `examples` that a model held to those of `training` cannot give."""
    vocabulary = set(closed_vocabulary(training))
    for line, reply in _replies(examples, lines) if vocabulary else ():
        if reply not in vocabulary:
            message = f"Example {line} has the label {preview(reply)}, which is never trained."
            yield make_issue(line, "unseen_label", message)


def parenthesized_labels(examples: Sequence[TrainingExample]) -> Counter[str]:
    """The labels of a file whose replies are labels in parentheses; nothing for any other."""
    replies = [reply.strip() for example in examples for reply in example.trained_replies]
    labels = Counter(filter(is_label, replies))
    return labels if labels.total() >= _HOUSE_STYLE * len(replies) else Counter()


class LabelMatcher:
    """Which label a reply is but for case, punctuation and spacing, or whose emoji it is."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._labels: defaultdict[str, list[str]] = defaultdict(list)
        known = label_meanings()
        for label in labels:
            names = {label, known[label].emoji} if label in known else {label}
            for name in filter(None, map(letters_and_digits, names)):
                self._labels[name].append(label)

    def by(self, reply: str) -> str | None:
        """The label; None if there is none, or more than one."""
        alike = self._labels.get(letters_and_digits(reply), [])
        return alike[0] if len(alike) == 1 else None


def _replies(examples: Sequence[TrainingExample], lines: Sequence[int]) -> list[tuple[int, str]]:
    """(line, trained reply); white space around a reply and empty ones are told of elsewhere."""
    return [
        (line, reply.strip())
        for line, example in zip(lines, examples, strict=True)
        for reply in example.trained_replies
        if reply.strip()
    ]


def _off_style(replies: list[tuple[int, str]], labels: Counter[str]) -> Iterator[Issue]:
    share = f"{labels.total() / len(replies):.0%}"
    labels_meant = LabelMatcher(labels)
    for line, reply in replies:
        if not is_label(reply):
            message = (
                f"Example {line}: the reply {preview(reply)} is not one label in parentheses, "
            )
            meant = labels_meant.by(reply)
            advice = f"Did you mean {meant}?" if meant else None
            yield make_issue(line, "off_style", f"{message}as {share} of the replies are.", advice)


def _near_misses(replies: list[tuple[int, str]], labels: Counter[str]) -> Iterator[Issue]:
    known = label_meanings().keys()
    # Who uses our labels may have meant one of them that the file never has.
    ours: Set[str] = known if 2 * len(labels.keys() & known) >= len(labels) else frozenset()
    targets = ours | {label for label, count in labels.items() if count >= _TIMES}
    spelling = Spelling(sorted(targets))
    places = defaultdict(list)
    for line, reply in replies:
        places[reply].append(line)
    for label, count in labels.items():
        if count > _RARE or label in ours:
            continue
        alike = [one for one in spelling.alike(label) if _likelier(one, label, labels, ours)]
        if alike:
            meant = max(alike, key=lambda one: labels[one])
            where = f"{preview(label)} ({abbreviate_lines(places[label])})"
            message = f"The label {where} is nearly {preview(meant)}, seen {labels[meant]} time(s)."
            yield make_issue(
                places[label][0], "near_miss", message, f"Did you mean {preview(meant)}?"
            )


def _likelier(meant: str, label: str, labels: Counter[str], ours: Set[str]) -> bool:
    return meant != label and (meant in ours or labels[meant] >= _TIMES * labels[label])


def _frequencies(labels: Counter[str]) -> Iterator[Issue]:
    once = sorted(label for label, count in labels.items() if count == 1)
    if once:
        named = ", ".join(map(preview, once[:_MOST_NAMED]))
        more = f" and {len(once) - _MOST_NAMED} more" if len(once) > _MOST_NAMED else ""
        message = f"{len(once)} of {len(labels)} labels have one example each: {named}{more}."
        yield make_issue(None, "labels_seen_once", message)
    (most, count), *others = labels.most_common()
    usual = statistics.median(n for _, n in others) if others else count
    if count >= _TEN_TIMES * usual:
        message = f"The label {preview(most)} has {count} of {labels.total()} examples; "
        yield make_issue(None, "imbalance", f"{message}the usual one has {usual:g}.")
