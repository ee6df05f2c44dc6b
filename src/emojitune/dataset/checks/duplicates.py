"""What a file says twice: the same prompts, prompts that are near, and those of another file."""

from collections.abc import Iterator, Sequence

from emojitune.dataset.example import TrainingExample
from emojitune.dataset.rules import Issue, issue
from emojitune.dataset.split import leakage, near_duplicates, same_prompts
from emojitune.dataset.statistics import closed_vocabulary


def repetition_issues(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    """Every example that repeats an earlier one's prompt, with the same or another reply."""
    for group in same_prompts(examples):
        first, first_of = group[0], dict[str, int]()
        for i in group:
            earlier = first_of.setdefault(examples[i].reply, i)
            if earlier != i:
                message = f"Example {lines[i]} says the same as example {lines[earlier]}."
                yield issue(lines[i], "duplicate_example", message)
            elif i != first:
                message = f"Example {lines[i]} has the prompt of example {lines[first]}, "
                yield issue(lines[i], "conflicting_reply", message + "but another reply.")
    yield from _near(examples, lines)


def _near(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    closed = bool(closed_vocabulary(examples))
    for i, j in near_duplicates(examples):
        message = f"Example {lines[j]} is nearly example {lines[i]}"
        if examples[i].reply == examples[j].reply:
            yield issue(lines[j], "near_duplicate", f"{message}, with the same reply.")
        elif closed:  # answers in prose to questions of one pattern differ, as they should
            yield issue(lines[j], "near_conflict", f"{message}, but has another label.")


def leakage_issues(
    examples: Sequence[TrainingExample],
    lines: Sequence[int],
    training: Sequence[TrainingExample],
    training_lines: Sequence[int],
) -> Iterator[Issue]:
    """Every example whose prompt is in the training file, or nearly."""
    for i, j in leakage(training, examples):
        message = f"Example {lines[j]} asks what example {training_lines[i]} of the training file "
        yield issue(lines[j], "leakage", message + "asks, or nearly.")
