"""What a tuned model recognizes: nearest neighbours of a prompt among its training examples.

Behind most layers of a tuned model, the hidden state of a prompt's last token holds what decides
the reply. Prompts that are alike there want the same reply, and the model does not always say what
it knows. So replies of a closed set are weighed by both. The weight of a reply y to a prompt x is

    OF_MODEL · log p(y | x)  +  OF_EXAMPLES · log Σ exp(cos(h(x), h(x')) / TEMPERATURE)

with a sum over the examples (x', y); h are hidden states, summed over three layers, less their
mean over all examples. The ratio of the two factors decides which reply is best, their size how
sure of it one may be.
Khandelwal et al. (2020) do so with next tokens, here it is whole replies. docs/log.md has what it
is worth, and how the numbers were chosen.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from emojitune.disk import disk_errors
from emojitune.errors import ModelError
from emojitune.inference.decoding.constraint import LabelTrie, State
from emojitune.inference.engine.batch import ForwardPass
from emojitune.inference.engine.kv_cache import Forest, Growth
from emojitune.models import adapter
from emojitune.models.packed_llama import LlamaAdapter

_OF_MODEL = 0.46
_OF_EXAMPLES = 1.15
_TEMPERATURE = 0.075
_LEAST = exp(-1.0 / _TEMPERATURE)

_FILE = "neighbours.safetensors"
_DIGEST = "sha256"
_TOLD = "emojitune"
_STATES, _OF = "states", "12+13+14/16"  # see inference/engine/batch.py
_AT_ONCE = 16  # prompts of one pass
_MOST_TOKENS = 8192  # of them together: what each token sees of its prompt is kept side by side


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Hidden states of examples, and what was replied.

    Attributes:
        keys: One of each example, less `center` and of length 1: (N, C), float32.
        center: Their mean, (C,).
        replies: Indices into the closed set of replies, (N,).
    """

    keys: Tensor
    center: Tensor
    replies: Tensor

    @staticmethod
    def of(states: Tensor, replies: Sequence[int]) -> "Neighbours":
        """From hidden states (N, C)."""
        center = states.mean(0)
        return Neighbours(_unit(states - center), center, torch.tensor(replies))

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.center.nbytes + self.replies.nbytes

    def likeness(self, state: Tensor, count: int) -> list[float]:
        """For each of `count` replies the sum over its examples, to the power OF_EXAMPLES."""
        near = (self.keys @ _unit(state - self.center) / _TEMPERATURE).exp()
        # One that has none left is as likely as if it had the most unlike.
        total = torch.full((count,), _LEAST).index_add_(0, self.replies, near)
        found: list[float] = total.pow(_OF_EXAMPLES).tolist()
        return found

    def save(self, folder: Path) -> None:
        """Into an adapter's folder. Raises StorageError when the disk is full or closed."""
        tensors = {"keys": self.keys.half(), "center": self.center, "replies": self.replies}
        with disk_errors(folder):
            # One entry: several are written in a random order, and a job makes the same bytes.
            told = json.dumps({_DIGEST: _digest(tensors), _STATES: _OF})
            save_file(tensors, folder / _FILE, metadata={_TOLD: told})

    @staticmethod
    def load(folder: Path, count: int) -> "Neighbours | None":
        """Those of an adapter with `count` replies; None where it was trained without, or its
        hidden states are others than are compared today.

        Raises:
            ModelError: The file is damaged.
        """
        if not (folder / _FILE).exists():
            return None
        try:
            tensors, told = _read(folder)
            if told.get(_STATES) != _OF:
                return None
            keys, center, replies = (tensors[name] for name in ("keys", "center", "replies"))
            whole = keys.shape == (len(replies), len(center))
            whole = whole and 0 <= int(replies.min()) <= int(replies.max()) < count
        except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise _damaged(folder, error) from error
        if not whole or not all(torch.isfinite(one).all() for one in (keys, center)):
            raise _damaged(folder, "its numbers do not belong together")
        return Neighbours(keys.float(), center.float(), replies)


def verify(folder: Path) -> None:
    """Look at all that a tuned model has on the disk: its adapter, and the examples beside it.

    Raises:
        ModelError: It is not whole.
    """
    adapter.verify(folder)
    if Neighbours.load(folder, len(adapter.read_info(folder).vocabulary)) is None:
        return
    tensors, told = _read(folder)
    if _digest(tensors) != told.get(_DIGEST):
        raise _damaged(folder, "they are not what was written")


class NeighbourWeights:
    """Weights of the replies of a trie; see `inference/decoding/label_search.py`."""

    def __init__(self, trie: LabelTrie, likeness: dict[State, float]) -> None:
        """`likeness` is that of each reply, by the state where it ends."""
        self._trie = trie
        self._likeness = likeness

    def disturbed(self, temperature: float, generator: torch.Generator) -> "NeighbourWeights":
        """With noise, such that the reply of most weight is a draw from all at the temperature.

        What is most of some log-probabilities, each with Gumbel noise of its own, is drawn by them.
        So a draw takes a search for one reply, and no sum over all.
        """
        count = len(self._likeness)
        noise = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
        factors = (noise.clamp_min(1e-100) ** -temperature).tolist()
        pairs = zip(self._likeness.items(), factors, strict=True)
        return NeighbourWeights(self._trie, {end: one * factor for (end, one), factor in pairs})

    def of_reply(self, log_probability: float, state: State) -> float:
        return _OF_MODEL * log_probability + log(self._likeness[state])

    def of_path(self, log_probability: float, state: State) -> float:
        return _OF_MODEL * log_probability + self._best_behind[state]

    def of_all(self, log_probability: float, state: State) -> float:
        return _OF_MODEL * log_probability + self._all_behind[state]

    def guess(self, state: State) -> int | None:
        children = self._trie.children[state]
        return max(children, key=lambda token: self._best_behind[children[token]], default=None)

    @cached_property
    def _best_behind(self) -> list[float]:
        return self._behind(max)

    @cached_property
    def _all_behind(self) -> list[float]:
        return self._behind(sum)

    def _behind(self, join: Callable[[Iterable[float]], float]) -> list[float]:
        """By state, the likeness of the replies through it, as a logarithm."""
        children = self._trie.children
        found = [0.0] * len(children)
        for state in reversed(range(len(found))):  # children come behind their parents
            behind = [found[child] for child in children[state].values()]
            found[state] = join([self._likeness.get(state, 0.0), *behind])
        return [log(value) for value in found]


def by_turns(replies: Sequence[int]) -> list[int]:
    """Indices of examples: the first of each reply, then the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for index, reply in enumerate(replies):
        turns.append((seen[reply], index))
        seen[reply] += 1
    return [index for _, index in sorted(turns)]


def hidden_states(
    forward: ForwardPass,
    tuned: LlamaAdapter | None,
    prompts: Sequence[Sequence[int]],
    check: Callable[[], None],
) -> Tensor:
    """That of each prompt's last token, (N, C), in float32. `check` is called between passes, and
    may raise."""
    forest = Forest(forward)
    return torch.stack(list(_states(forest, tuned, prompts, check)))


def _states(
    forest: Forest,
    tuned: LlamaAdapter | None,
    prompts: Sequence[Sequence[int]],
    check: Callable[[], None],
) -> Iterator[Tensor]:
    first = True
    for some in _passes(prompts):
        check()
        known = [forest.longest_known(prompt, tuned) for prompt in some]
        wants = [
            [Growth(one.path, prompt[one.cached :], wanted=(), state=len(prompt) - one.cached - 1)]
            for one, prompt in zip(known, some, strict=True)
        ]
        grown = [one for [one] in forest.grow(wants, [tuned] * len(wants))]
        if first:  # what the others begin with is not computed again
            forest.remember(some[0], tuned, grown[0].path)
            first = False
        for before, one in zip(known, grown, strict=True):
            forest.release([one.path.slots[before.cached :]])
            assert one.state is not None
            yield one.state


def _passes(prompts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, ...]]]:
    """The prompts in their order, as many together as one pass has room for."""
    some: list[tuple[int, ...]] = []
    for prompt in prompts:
        if some and (len(some) == _AT_ONCE or sum(map(len, some)) + len(prompt) > _MOST_TOKENS):
            yield some
            some = []
        some.append(tuple(prompt))
    if some:
        yield some


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(folder / _FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get(_TOLD, "{}"))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _damaged(folder: Path, reason: object) -> ModelError:
    return ModelError(
        f"The examples beside the adapter in {folder} cannot be read: {reason}. Run the "
        f"fine-tuning job again, or remove {_FILE} there to do without them.",
        code="adapter_damaged",
    )
