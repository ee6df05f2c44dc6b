"""kNN scoring: labels re-ranked by the training examples nearest to a prompt.

After most layers of a tuned model, the hidden state of a prompt's last token holds the features
that decide the reply. Prompts with similar states need the same label, and the model does not
always give it the highest probability. So the score of a label y for a prompt x combines both:

    MODEL_WEIGHT · log p(y | x)  +  KNN_WEIGHT · log Σ exp(cos(h(x), h(x')) / TEMPERATURE)

where the sum is over the examples (x', y); h are hidden states, summed over three layers, less
their mean over all examples. The ratio of the two weights decides which label is best, their size
how sharp the distribution over labels is. Khandelwal et al. (2020) score next tokens from such a
datastore, here it scores entire labels. docs/log reports its effect, and how the constants were
chosen.

Shapes: N examples, C hidden.
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
from emojitune.inference.engine.batch import Adapter, ModelRunner
from emojitune.inference.engine.kv_cache import ForwardRequest, KVCache
from emojitune.models import adapter

_MODEL_WEIGHT = 0.46
_KNN_WEIGHT = 1.15
_TEMPERATURE = 0.075
_MIN_SIMILARITY = exp(-1.0 / _TEMPERATURE)

_FILE = "neighbours.safetensors"
_METADATA = "emojitune"
_DIGEST = "sha256"
_LAYERS, _OUR_LAYERS = "states", "12+13+14/16"  # see inference/engine/batch.py
_PASS_PROMPTS = 16
_PASS_TOKENS = 8192  # of all prompts of a pass, whose attention scores are in memory together


@dataclass(frozen=True, slots=True)
class KNNDatastore:
    """Hidden states of training examples as keys, and their replies as values.

    Attributes:
        keys: The hidden state of each example, less `center` and of length 1: (N, C), float32.
        center: The mean of the hidden states, (C,).
        replies: Indices into the closed set of replies, (N,).
    """

    keys: Tensor
    center: Tensor
    replies: Tensor

    @staticmethod
    def of(states: Tensor, replies: Sequence[int]) -> "KNNDatastore":
        """The datastore of hidden states (N, C) and their replies (N,)."""
        center = states.mean(0)
        return KNNDatastore(_unit(states - center), center, torch.tensor(replies))

    @property
    def bytes(self) -> int:
        return self.keys.nbytes + self.center.nbytes + self.replies.nbytes

    def similarity(self, state: Tensor, count: int) -> list[float]:
        """For each of `count` replies the similarities of its examples to a hidden state (C,),
        summed, to the power KNN_WEIGHT."""
        each = (self.keys @ _unit(state - self.center) / _TEMPERATURE).exp()
        # A reply without an example counts as one with the least similar example.
        total = torch.full((count,), _MIN_SIMILARITY).index_add_(0, self.replies, each)
        similarities: list[float] = total.pow(_KNN_WEIGHT).tolist()
        return similarities

    def save(self, folder: Path) -> None:
        """Write into an adapter's folder. Raises StorageError where the disk does not allow it."""
        tensors = {"keys": self.keys.half(), "center": self.center, "replies": self.replies}
        with disk_errors(folder):
            # One entry: several would be written in a random order, and a job makes equal bytes.
            about = json.dumps({_DIGEST: _digest(tensors), _LAYERS: _OUR_LAYERS})
            save_file(tensors, folder / _FILE, metadata={_METADATA: about})

    @staticmethod
    def load(folder: Path, count: int) -> "KNNDatastore | None":
        """The datastore of an adapter with `count` replies; None where it was trained without one,
        or with hidden states of other layers than today's.

        Raises:
            ModelError: The file is damaged.
        """
        if not (folder / _FILE).exists():
            return None
        try:
            tensors, about = _read(folder)
            if about.get(_LAYERS) != _OUR_LAYERS:
                return None
            keys, center, replies = (tensors[name] for name in ("keys", "center", "replies"))
            consistent = keys.shape == (len(replies), len(center))
            consistent = consistent and 0 <= int(replies.min()) <= int(replies.max()) < count
        except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise _damaged(folder, error) from error
        if not consistent or not all(torch.isfinite(one).all() for one in (keys, center)):
            raise _damaged(folder, "its numbers do not belong together")
        return KNNDatastore(keys.float(), center.float(), replies)


def verify(folder: Path) -> None:
    """Check all files of a tuned model: its adapter, and the datastore beside it.

    Raises:
        ModelError: One of them is damaged.
    """
    adapter.verify(folder)
    if KNNDatastore.load(folder, len(adapter.read_info(folder).vocabulary)) is None:
        return
    tensors, about = _read(folder)
    if _digest(tensors) != about.get(_DIGEST):
        raise _damaged(folder, "they are not what was written")


class KNNScorer:
    """Scores the labels of a trie by model and examples: a `PerturbableScorer`."""

    def __init__(self, trie: LabelTrie, similarity: dict[State, float]) -> None:
        """`similarity` is that of each label to the prompt, by the state where the label ends."""
        self._trie = trie
        self._similarity = similarity

    def with_gumbel_noise(self, temperature: float, generator: torch.Generator) -> "KNNScorer":
        """A scorer with noise, whose best label is a sample from all of them at the temperature.

        Gumbel-max trick: the argmax of log-probabilities plus independent Gumbel noise is an exact
        sample. So a sample takes a search for one label, and no sum over all.
        """
        count = len(self._similarity)
        noise = torch.empty(count, dtype=torch.float64).exponential_(generator=generator)
        factors = (noise.clamp_min(1e-100) ** -temperature).tolist()
        pairs = zip(self._similarity.items(), factors, strict=True)
        return KNNScorer(self._trie, {end: one * factor for (end, one), factor in pairs})

    def score(self, log_probability: float, state: State) -> float:
        return _MODEL_WEIGHT * log_probability + log(self._similarity[state])

    def upper_bound(self, log_probability: float, state: State) -> float:
        return _MODEL_WEIGHT * log_probability + self._best_below[self._trie.edge(state)]

    def mass_bound(self, log_probability: float, state: State) -> float:
        return _MODEL_WEIGHT * log_probability + self._sum_below[self._trie.edge(state)]

    def draft(self, state: State) -> int | None:
        allowed = self._trie.allowed_tokens(state)
        if len(allowed) < 2:
            return allowed[0] if allowed else None
        following = self._trie.following(self._trie.edge(state))
        return max(allowed, key=lambda token: self._best_below[following[token]])

    @cached_property
    def _best_below(self) -> list[float]:
        return self._aggregate(max)

    @cached_property
    def _sum_below(self) -> list[float]:
        return self._aggregate(sum)

    def _aggregate(self, combine: Callable[[Iterable[float]], float]) -> list[float]:
        """By edge, the combined similarities of the labels through it, as a logarithm."""
        trie = self._trie
        own = {trie.edge(state): similarity for state, similarity in self._similarity.items()}
        similarities = [0.0] * len(trie.edges)
        for edge in trie.edges:
            below = [similarities[following] for following in trie.following(edge).values()]
            similarities[edge] = combine([own.get(edge, 0.0), *below])
        return [log(value) for value in similarities]


def round_robin(replies: Sequence[int]) -> list[int]:
    """Indices of examples: the first of each reply, then the second of each, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for index, reply in enumerate(replies):
        turns.append((seen[reply], index))
        seen[reply] += 1
    return [index for _, index in sorted(turns)]


def hidden_states(
    runner: ModelRunner[Adapter],
    tuned: Adapter | None,
    prompts: Sequence[Sequence[int]],
    check: Callable[[], None],
) -> Tensor:
    """The hidden state of each prompt's last token, (N, C), in float32.

    Args:
        tuned: The adapter of the model, where it has one.
        check: Called between passes, and may raise.
    """
    return torch.stack(
        list(_each_hidden_state(KVCache(runner, hidden_only=True), tuned, prompts, check))
    )


def _each_hidden_state(
    cache: KVCache[Adapter],
    tuned: Adapter | None,
    prompts: Sequence[Sequence[int]],
    check: Callable[[], None],
) -> Iterator[Tensor]:
    first = True
    for batch in _batches(prompts):
        check()
        matched = [cache.match_prefix(prompt, tuned) for prompt in batch]
        requests = [
            [
                ForwardRequest(
                    prompt.path,
                    prompt.uncached,
                    logprob_tokens=(),
                    hidden_at=len(prompt.uncached) - 1,
                )
            ]
            for prompt in matched
        ]
        results = [result for [result] in cache.forward(requests, [tuned] * len(requests))]
        if first:  # the prefix that prompts share is not computed again
            cache.insert(batch[0], tuned, results[0].path)
            first = False
        for prompt, result in zip(matched, results, strict=True):
            cache.release([result.path.slots[prompt.cached :]])
            assert result.hidden_state is not None
            yield result.hidden_state


def _batches(prompts: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, ...]]]:
    """The prompts in their order, as many together as one pass has room for."""
    batch: list[tuple[int, ...]] = []
    for prompt in prompts:
        tokens = sum(map(len, batch)) + len(prompt)
        if batch and (len(batch) == _PASS_PROMPTS or tokens > _PASS_TOKENS):
            yield batch
            batch = []
        batch.append(tuple(prompt))
    if batch:
        yield batch


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(folder / _FILE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((file.metadata() or {}).get(_METADATA, "{}"))


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
