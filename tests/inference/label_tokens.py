"""Labels as token ids, and their probability computed the plain way."""

import torch

from emojitune.models.loader import LoadedHF

PROMPT = [1, 40, 41, 42]


STOPS = frozenset({2})


LABELS = [(30, 31, 32), (30, 31, 34), (30, 33), (30, 33, 35, 32), (36, 37)]


def joint(model: LoadedHF, label: tuple[int, ...]) -> float:
    """The joint log-probability of a label, computed without search or cache."""
    # Only (30, 33) begins another label: there, to end is a choice.
    tokens = [*label, 2] if label == (30, 33) else list(label)
    with torch.no_grad():
        logits = model.module(torch.tensor([[*PROMPT, *tokens]])).logits[0]
    rows = torch.log_softmax(logits.float(), -1)
    return sum(float(rows[len(PROMPT) - 1 + i, token]) for i, token in enumerate(tokens))
