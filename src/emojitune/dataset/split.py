"""A file's examples cut in two, with equal prompts on the same side."""

import random
from collections.abc import Sequence

from emojitune.dataset.checks.duplicates import Group, group_by_prompt
from emojitune.dataset.example import TrainingExample
from emojitune.errors import InvalidRequestError


def split_indices(
    examples: Sequence[TrainingExample], *, share: float, seed: int
) -> tuple[Group, Group]:
    """Indices of (training, validation): about `share` of all are in the second, in file order.

    Examples with the same prompt stay on the same side. The same seed cuts the same way.
    """
    if not 0 < share < 1:
        raise InvalidRequestError(f"The validation share must lie between 0 and 1, not {share}.")
    groups = group_by_prompt(examples)
    random.Random(seed).shuffle(groups)
    held_out: set[int] = set()
    for group in groups:
        if len(held_out) >= round(share * len(examples)):
            break
        held_out.update(group)
    training = tuple(index for index in range(len(examples)) if index not in held_out)
    return training, tuple(sorted(held_out))
