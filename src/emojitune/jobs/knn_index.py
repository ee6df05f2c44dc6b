"""What a finished model keeps of its training examples; see inference/decoding/knn.py."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emojitune.dataset.example import TrainingExample
from emojitune.inference.decoding.knn import KNNDatastore, hidden_states, round_robin
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.models.linear import TrainableLinear
from emojitune.models.loader import LoadedLlama, Trainable, load_llama_adapter
from emojitune.models.packed_llama import LlamaAdapter

# More would add little, and take long to compute.
_MOST = 4096
_MOST_TOKENS = 150_000
# 12 s for 1,267 prompts, where an epoch of the same examples takes 68.
_FASTER_THAN_A_STEP = 5.7


@dataclass(frozen=True, slots=True)
class KNNExamples:
    """The examples that stay with a model, chosen before it is trained.

    Attributes:
        prompts: Their token ids.
        replies: Indices into the closed set of replies.
    """

    model: LoadedLlama[TrainableLinear]
    prompts: Sequence[tuple[int, ...]]
    replies: Sequence[int]

    def steps(self, batch_size: int) -> float:
        """How long it takes to see them, in training steps of that size."""
        return len(self.prompts) / batch_size / _FASTER_THAN_A_STEP

    def seen(self, adapter: Path, check: Callable[[], None]) -> KNNDatastore:
        """As the model with this adapter sees them. `check` is called often, and may raise."""
        tuned, _ = load_llama_adapter(self.model.llama, adapter)
        return KNNDatastore.of(_in_threads(self.model, tuned, self.prompts, check), self.replies)


def choose(
    model: Trainable, examples: Sequence[TrainingExample], vocabulary: Sequence[str]
) -> KNNExamples | None:
    """What a model with this closed set of replies keeps of its examples.

    None where there is no such set, or a model is run through its own modules, which chat gives
    weights of their own.
    """
    if not (vocabulary and isinstance(model, LoadedLlama)):
        return None
    number = {reply: index for index, reply in enumerate(vocabulary)}
    known = [example for example in examples if example.reply in number]
    prompts: list[tuple[int, ...]] = []
    replies: list[int] = []
    tokens = 0
    for index in round_robin([number[example.reply] for example in known])[:_MOST]:
        prompt = model.renderer.render_prompt(known[index].prompt)[-model.context_length :]
        tokens += len(prompt)
        if prompts and tokens > _MOST_TOKENS:
            break
        prompts.append(prompt)
        replies.append(number[known[index].reply])
    return KNNExamples(model, prompts, replies)


def _in_threads(
    model: LoadedLlama[TrainableLinear],
    tuned: LlamaAdapter,
    prompts: Sequence[tuple[int, ...]],
    check: Callable[[], None],
) -> Tensor:
    """Hidden states, each thread with prompts of its own: as in training, they need not meet."""
    cores = torch.get_num_threads()
    count = 1 if model.llama.embedding.device.type != "cpu" else min(cores, len(prompts))
    parts = [prompts[part::count] for part in range(count)]

    def states(part: Sequence[tuple[int, ...]]) -> Tensor:
        return hidden_states(LlamaRunner(model.llama), tuned, part, check)

    torch.set_num_threads(cores // count)
    try:
        with ThreadPoolExecutor(count) as threads:
            found = list(threads.map(states, parts))
    finally:
        torch.set_num_threads(cores)
    whole = torch.empty(len(prompts), found[0].shape[1])
    for part, some in enumerate(found):
        whole[part::count] = some
    return whole
