"""The kNN datastore of a finished model, computed from training examples.

inference/decoding/knn.py defines the datastore.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from emojitune.dataset.example import TrainingExample
from emojitune.inference.decoding.knn import KNNDatastore, hidden_states, round_robin
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.models import adapter
from emojitune.models.linear import TrainableLinear
from emojitune.models.loader import LoadedLlama, TrainableModel
from emojitune.models.packed_llama import LlamaAdapter

# More would add little, and take long to compute.
_MAX_EXAMPLES = 4096
_MAX_TOKENS = 150_000
# 12 s for 1,267 prompts, where an epoch of the same examples takes 68.
_FASTER_THAN_A_STEP = 5.7


@dataclass(frozen=True, slots=True)
class KNNExamples:
    """Examples that a finished model is to look up, chosen before it is trained.

    Attributes:
        model: The model that is trained.
        prompts: Token ids of the examples' prompts.
        replies: Indices of their replies in the closed set.
    """

    model: LoadedLlama[TrainableLinear]
    prompts: Sequence[tuple[int, ...]]
    replies: Sequence[int]

    def duration_in_steps(self, batch_size: int) -> float:
        """How long computing their datastore takes, in training steps of that batch size."""
        return len(self.prompts) / batch_size / _FASTER_THAN_A_STEP

    def datastore(self, folder: Path, check: Callable[[], None]) -> KNNDatastore:
        """Their hidden states in the model with the adapter in `folder`, each with its reply.

        `check` is called often, and may raise.
        """
        info, state = adapter.read(folder)
        tuned = LlamaAdapter(self.model.llama, state, info.scale)
        return KNNDatastore.of(_hidden_states(self.model, tuned, self.prompts, check), self.replies)


def choose_examples(
    model: TrainableModel, examples: Sequence[TrainingExample], vocabulary: Sequence[str]
) -> KNNExamples | None:
    """Choose the examples that a model with this closed set of replies looks up.

    None where there is no such set, or the model is trained as transformers' modules: inference
    merges its adapter into weights of its own.
    """
    if not (vocabulary and isinstance(model, LoadedLlama)):
        return None
    number = {reply: index for index, reply in enumerate(vocabulary)}
    labelled = [example for example in examples if example.reply in number]
    prompts: list[tuple[int, ...]] = []
    replies: list[int] = []
    tokens = 0
    for index in round_robin([number[example.reply] for example in labelled])[:_MAX_EXAMPLES]:
        prompt = model.renderer.render_prompt(labelled[index].prompt)[-model.context_length :]
        tokens += len(prompt)
        if prompts and tokens > _MAX_TOKENS:
            break
        prompts.append(prompt)
        replies.append(number[labelled[index].reply])
    return KNNExamples(model, prompts, replies)


def _hidden_states(
    model: LoadedLlama[TrainableLinear],
    tuned: LlamaAdapter,
    prompts: Sequence[tuple[int, ...]],
    check: Callable[[], None],
) -> Tensor:
    """The hidden states of P prompts, (P, hidden size).

    Each thread has prompts of its own: as in training, none waits for another.
    """
    cores = torch.get_num_threads()
    count = 1 if model.llama.embedding.device.type != "cpu" else min(cores, len(prompts))
    parts = [prompts[part::count] for part in range(count)]

    def compute(part: Sequence[tuple[int, ...]]) -> Tensor:
        return hidden_states(LlamaRunner(model.llama), tuned, part, check)

    torch.set_num_threads(cores // count)
    try:
        with ThreadPoolExecutor(count) as threads:
            results = list(threads.map(compute, parts))
    finally:
        torch.set_num_threads(cores)
    states = torch.empty(len(prompts), results[0].shape[1])
    for part, result in enumerate(results):
        states[part::count] = result
    return states
