"""Cutting a file in two, and what must not be on both sides of the cut.

Two prompts are the same when they are equal after normalisation; `near.py` says what near means.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from emojitune.dataset.checks.near_duplicates import near_across, near_earlier, normalise
from emojitune.dataset.example import TrainingExample
from emojitune.errors import InvalidRequestError

Group = tuple[int, ...]


def split_places(
    examples: Sequence[TrainingExample], *, share: float, seed: int
) -> tuple[Group, Group]:
    """Places of (training, validation): about `share` of all are in the second, in file order.

    Examples with the same prompt stay on the same side. The same seed cuts the same way.
    """
    if not 0 < share < 1:
        raise InvalidRequestError(f"The validation share must lie between 0 and 1, not {share}.")
    groups = _groups(prompt_key(example) for example in examples)
    random.Random(seed).shuffle(groups)
    held_out: set[int] = set()
    for group in groups:
        if len(held_out) >= round(share * len(examples)):
            break
        held_out.update(group)
    training = tuple(place for place in range(len(examples)) if place not in held_out)
    return training, tuple(sorted(held_out))


def same_prompts(examples: Sequence[TrainingExample]) -> list[Group]:
    """Groups of places that hold the same prompt, whatever the reply."""
    return [group for group in _groups(map(prompt_key, examples)) if len(group) > 1]


def near_duplicates(examples: Sequence[TrainingExample]) -> list[tuple[int, int]]:
    """(an earlier place, place) of prompts that are near, but not the same."""
    pairs = near_earlier([_asked(example) for example in examples])
    return [(i, j) for i, j in pairs if prompt_key(examples[i]) != prompt_key(examples[j])]


def leakage(
    training: Sequence[TrainingExample], validation: Sequence[TrainingExample]
) -> list[tuple[int, int]]:
    """(a place in training, place in validation) of validation prompts that training has, nearly.

    System prompts do not count: all examples may have the same one.
    """
    return near_across(list(map(_asked, training)), list(map(_asked, validation)))


def _asked(example: TrainingExample) -> str:
    return "\n".join(m.content for m in example.prompt if m.role in ("user", "assistant"))


def prompt_key(example: TrainingExample) -> tuple[tuple[str, str], ...]:
    """Equal for prompts that are the same."""
    return tuple((message.role, normalise(message.content)) for message in example.prompt)


def _groups(keys: Iterable[Hashable]) -> list[Group]:
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return [tuple(group) for group in places.values()]
