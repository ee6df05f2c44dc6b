"""What a finished model keeps of the examples that it was trained on; see chat/neighbours.py."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from emojitune.chat.llama_pass import LlamaPass
from emojitune.chat.neighbours import Neighbours, by_turns, hidden_states
from emojitune.dataset.example import TrainingExample
from emojitune.models.loader import LoadedLlama, Trainable, load_llama_adapter
from emojitune.models.packed_llama import LlamaAdapter
from emojitune.models.products import TwoWayProduct

# More would add little, and take long to compute.
_MOST = 4096
_MOST_TOKENS = 150_000


def recognized(
    model: Trainable,
    adapter: Path,
    examples: Sequence[TrainingExample],
    check: Callable[[], None],
) -> Neighbours | None:
    """The examples as a model with this adapter sees them.

    None where it has no closed set of replies, or is run through its own modules, which chat gives
    weights of their own. `check` is called often, and may raise.
    """
    if not isinstance(model, LoadedLlama):
        return None
    tuned, vocabulary = load_llama_adapter(model.llama, adapter)
    if not vocabulary:
        return None
    number = {reply: index for index, reply in enumerate(vocabulary)}
    known = [example for example in examples if example.reply in number]
    prompts: list[tuple[int, ...]] = []
    replies: list[int] = []
    tokens = 0
    for index in by_turns([number[example.reply] for example in known])[:_MOST]:
        prompt = model.renderer.render_prompt(known[index].prompt)[-model.context_length :]
        tokens += len(prompt)
        if prompts and tokens > _MOST_TOKENS:
            break
        prompts.append(prompt)
        replies.append(number[known[index].reply])
    return Neighbours.of(_in_threads(model, tuned, prompts, check), replies)


def _in_threads(
    model: LoadedLlama[TwoWayProduct],
    tuned: LlamaAdapter,
    prompts: Sequence[tuple[int, ...]],
    check: Callable[[], None],
) -> Tensor:
    """Hidden states, each thread with prompts of its own: as in training, they need not meet."""
    cores = torch.get_num_threads()
    count = 1 if model.llama.embedding.device.type != "cpu" else min(cores, len(prompts))
    parts = [prompts[part::count] for part in range(count)]

    def states(part: Sequence[tuple[int, ...]]) -> Tensor:
        return hidden_states(LlamaPass(model.llama), tuned, part, check)

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
