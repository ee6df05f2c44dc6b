"""Checks of a file's labels: their style, their spelling and their frequencies.

A file whose replies are prose has no labels, and no issues here.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set

from emojitune.dataset.checks.spelling import SpellingIndex, letters_and_digits
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.rules import Issue, abbreviate_lines, make_issue, preview
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.labels import is_label, label_meanings

_MIN_STYLE_SHARE = 0.8  # of labels in parentheses, from which other replies are off style
_MAX_RARE = 2  # examples of a label that may be a misspelling
_MIN_FREQUENCY_RATIO = 3  # of the label that was meant, to the misspelled one
_MIN_IMBALANCE = 10  # ratio of the most frequent label to the median of the others
_MAX_NAMED = 5


def check_labels(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    """Replies that are off style, labels that look misspelled, and how frequent labels are."""
    replies = _numbered_replies(examples, lines)
    labels = parenthesized_labels(examples)
    if labels:
        yield from _check_style(replies, labels)
    elif closed_vocabulary(examples):
        labels = Counter(reply for _, reply in replies)
    else:
        return
    yield from _check_spelling(replies, labels)
    yield from _check_frequencies(labels)


def check_unseen_labels(
    examples: Sequence[TrainingExample],
    lines: Sequence[int],
    training: Sequence[TrainingExample],
) -> Iterator[Issue]:
    """Labels of `examples` that a model constrained to those of `training` cannot give."""
    vocabulary = set(closed_vocabulary(training))
    for line, reply in _numbered_replies(examples, lines) if vocabulary else ():
        if reply not in vocabulary:
            message = f"Example {line} has the label {preview(reply)}, which is never trained."
            yield make_issue(line, "unseen_label", message)


def parenthesized_labels(examples: Sequence[TrainingExample]) -> Counter[str]:
    """Frequencies of a file's labels in parentheses; empty if too few replies are labels."""
    replies = [reply.strip() for example in examples for reply in example.trained_replies]
    labels = Counter(filter(is_label, replies))
    return labels if labels.total() >= _MIN_STYLE_SHARE * len(replies) else Counter()


class LabelMatcher:
    """Matches replies to labels, apart from case, punctuation and spacing, or by their emoji."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._labels: defaultdict[str, list[str]] = defaultdict(list)
        meanings = label_meanings()
        for label in labels:
            names = {label, meanings[label].emoji} if label in meanings else {label}
            for name in filter(None, map(letters_and_digits, names)):
                self._labels[name].append(label)

    def match(self, reply: str) -> str | None:
        """The label of a reply; None if no label matches, or more than one."""
        matches = self._labels.get(letters_and_digits(reply), [])
        return matches[0] if len(matches) == 1 else None


def _numbered_replies(
    examples: Sequence[TrainingExample], lines: Sequence[int]
) -> list[tuple[int, str]]:
    """(line, trained reply), without white space and empty replies: other checks report those."""
    return [
        (line, reply.strip())
        for line, example in zip(lines, examples, strict=True)
        for reply in example.trained_replies
        if reply.strip()
    ]


def _check_style(replies: list[tuple[int, str]], labels: Counter[str]) -> Iterator[Issue]:
    share = f"{labels.total() / len(replies):.0%}"
    matcher = LabelMatcher(labels)
    for line, reply in replies:
        if not is_label(reply):
            message = (
                f"Example {line}: the reply {preview(reply)} is not one label in parentheses, "
            )
            meant = matcher.match(reply)
            advice = f"Did you mean {meant}?" if meant else None
            yield make_issue(line, "off_style", f"{message}as {share} of the replies are.", advice)


def _check_spelling(replies: list[tuple[int, str]], labels: Counter[str]) -> Iterator[Issue]:
    shipped = label_meanings().keys()
    # A file that mostly uses our labels may mean one of them, even if the file never has it.
    ours: Set[str] = shipped if 2 * len(labels.keys() & shipped) >= len(labels) else frozenset()
    frequent = {label for label, count in labels.items() if count >= _MIN_FREQUENCY_RATIO}
    spelling = SpellingIndex(sorted(ours | frequent))
    lines = defaultdict(list)
    for line, reply in replies:
        lines[reply].append(line)
    for label, count in labels.items():
        if count > _MAX_RARE or label in ours:
            continue
        similar = [one for one in spelling.similar(label) if _is_likelier(one, label, labels, ours)]
        if similar:
            meant = max(similar, key=lambda one: labels[one])
            where = f"{preview(label)} ({abbreviate_lines(lines[label])})"
            message = f"The label {where} is nearly {preview(meant)}, seen {labels[meant]} time(s)."
            advice = f"Did you mean {preview(meant)}?"
            yield make_issue(lines[label][0], "near_miss", message, advice)


def _is_likelier(meant: str, label: str, labels: Counter[str], ours: Set[str]) -> bool:
    frequent = labels[meant] >= _MIN_FREQUENCY_RATIO * labels[label]
    return meant != label and (meant in ours or frequent)


def _check_frequencies(labels: Counter[str]) -> Iterator[Issue]:
    once = sorted(label for label, count in labels.items() if count == 1)
    if once:
        named = ", ".join(map(preview, once[:_MAX_NAMED]))
        more = f" and {len(once) - _MAX_NAMED} more" if len(once) > _MAX_NAMED else ""
        message = f"{len(once)} of {len(labels)} labels have one example each: {named}{more}."
        yield make_issue(None, "labels_seen_once", message)
    (label, count), *others = labels.most_common()
    median = statistics.median(n for _, n in others) if others else count
    if count >= _MIN_IMBALANCE * median:
        message = f"The label {preview(label)} has {count} of {labels.total()} examples; "
        yield make_issue(None, "imbalance", f"{message}the usual one has {median:g}.")
