"""Prompts that a file repeats, exactly or nearly, or shares with another file.

Two prompts are the same when they are equal after normalisation; `near_duplicates.py` defines the
similarity of the rest.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from emojitune.dataset.checks.near_duplicates import (
    find_near_duplicates,
    find_near_duplicates_of,
    normalise,
)
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.rules import Issue, make_issue
from emojitune.dataset.statistics import closed_vocabulary

Group = tuple[int, ...]
PromptKey = tuple[tuple[str, str], ...]


def prompt_key(example: TrainingExample) -> PromptKey:
    """Normalised (role, text) of each message: equal for prompts that are the same."""
    return tuple((message.role, normalise(message.content)) for message in example.prompt)


def group_by_prompt(examples: Sequence[TrainingExample]) -> list[Group]:
    """Indices of examples with the same prompt, whatever the reply; groups in file order."""
    groups: defaultdict[PromptKey, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups[prompt_key(example)].append(index)
    return [tuple(group) for group in groups.values()]


def near_duplicate_prompts(examples: Sequence[TrainingExample]) -> list[tuple[int, int]]:
    """(an earlier index, index) of prompts that are similar, but not the same."""
    pairs = find_near_duplicates([_dialogue(example) for example in examples])
    return [(i, j) for i, j in pairs if prompt_key(examples[i]) != prompt_key(examples[j])]


def find_leakage(
    training: Sequence[TrainingExample], validation: Sequence[TrainingExample]
) -> list[tuple[int, int]]:
    """(index in training, index in validation) of validation prompts that training has, or nearly.

    System prompts do not count: all examples may have the same one.
    """
    return find_near_duplicates_of(list(map(_dialogue, training)), list(map(_dialogue, validation)))


def check_duplicates(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    """Every example that repeats an earlier prompt, with the same reply or another one."""
    for group in group_by_prompt(examples):
        first, first_with = group[0], dict[str, int]()
        for i in group:
            earlier = first_with.setdefault(examples[i].reply, i)
            if earlier != i:
                message = f"Example {lines[i]} says the same as example {lines[earlier]}."
                yield make_issue(lines[i], "duplicate_example", message)
            elif i != first:
                message = f"Example {lines[i]} has the prompt of example {lines[first]}, "
                yield make_issue(lines[i], "conflicting_reply", message + "but another reply.")
    yield from _check_near_duplicates(examples, lines)


def check_leakage(
    examples: Sequence[TrainingExample],
    lines: Sequence[int],
    training: Sequence[TrainingExample],
    training_lines: Sequence[int],
) -> Iterator[Issue]:
    """Every example whose prompt equals one of the training file, or nearly."""
    for i, j in find_leakage(training, examples):
        message = f"Example {lines[j]} asks what example {training_lines[i]} of the training file "
        yield make_issue(lines[j], "leakage", message + "asks, or nearly.")


def _check_near_duplicates(
    examples: Sequence[TrainingExample], lines: Sequence[int]
) -> Iterator[Issue]:
    closed = bool(closed_vocabulary(examples))
    for i, j in near_duplicate_prompts(examples):
        message = f"Example {lines[j]} is nearly example {lines[i]}"
        if examples[i].reply == examples[j].reply:
            yield make_issue(lines[j], "near_duplicate", f"{message}, with the same reply.")
        elif closed:  # answers in prose to questions of one pattern differ, as they should
            yield make_issue(lines[j], "near_conflict", f"{message}, but has another label.")


def _dialogue(example: TrainingExample) -> str:
    return "\n".join(m.content for m in example.prompt if m.role in ("user", "assistant"))
