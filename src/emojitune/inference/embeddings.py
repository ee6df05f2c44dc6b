"""Texts to vectors: the mean of the model's last hidden states, scaled to length 1.

Computed in slices, so that replies continue in between: short texts in batches, a long one in
chunks.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import CancelledError

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emojitune.errors import ConversationError
from emojitune.inference.engine.batch import ModelRunner, Past
from emojitune.inference.engine.scheduler import Scheduler
from emojitune.inference.engine.slices import Slices
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.types import Embeddings
from emojitune.models.packed_llama import LlamaAdapter
from emojitune.models.renderer import Renderer

MAX_TOKENS = 300_000  # of one request, as on the hosted API


class Embedder:
    """Embeds with one model; any number of threads may call it at once."""

    def __init__(
        self,
        runner: ModelRunner[LlamaAdapter],
        adapter: LlamaAdapter | None,
        renderer: Renderer,
        context_length: int,
        scheduler: Scheduler[LlamaAdapter],
    ) -> None:
        self._runner = runner
        self._adapter = adapter
        self._renderer = renderer
        self._context_length = context_length
        self._scheduler = scheduler
        self._chunk_tokens = runner.chunk_tokens

    def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        cancelled: Callable[[], bool],
        owner: Hashable = None,
    ) -> Embeddings | None:
        """A vector for each input: (inputs, hidden_size); None once `cancelled` returns True.

        Raises:
            RequestFault: An input has no tokens, unknown ones or too many.
        """
        ids = [self._token_ids(value, at) for at, value in enumerate(inputs)]
        total = sum(map(len, ids))
        if total > MAX_TOKENS:
            raise RequestFault(
                Field.INPUT,
                f"Requested {total} tokens, max {MAX_TOKENS} tokens per request. Send fewer "
                "inputs at a time.",
                code="max_tokens_per_request",
            )
        computation = self._scheduler.compute(self._embed(ids), cancelled=cancelled, owner=owner)
        try:
            return Embeddings(computation.result(), total)
        except CancelledError:
            return None

    def _embed(self, ids: Sequence[Sequence[int]]) -> Slices[NDArray[np.float32]]:
        """Vectors (rows, hidden_size) of rows of token ids."""
        vectors = np.zeros((len(ids), self._runner.hidden_size), dtype=np.float32)
        for batch in batches_by_length([len(row) for row in ids], self._chunk_tokens):
            sums = yield from self._hidden_sums([ids[at] for at in batch])
            # Sum and mean point the same way, and the vector is scaled to length 1.
            vectors[batch] = torch.nn.functional.normalize(sums, dim=-1).numpy()
        return vectors

    def _hidden_sums(self, rows: Sequence[Sequence[int]]) -> Slices[Tensor]:
        """Sums of each row's last hidden states: (rows, hidden_size); a long row comes alone."""
        sums = torch.zeros(len(rows), self._runner.hidden_size)
        past: Past = None
        for start in range(0, max(map(len, rows)), self._chunk_tokens):
            chunk = [row[start : start + self._chunk_tokens] for row in rows]
            more, past = yield from self._forward_chunk(chunk, past)
            sums += more
        return sums

    def _token_ids(self, value: str | Sequence[int], index: int) -> Sequence[int]:
        if isinstance(value, str) and self._renderer.exceeds(len(value), self._context_length):
            raise self._too_long(f"{len(value)} characters, which are more", index)
        try:
            ids = self._renderer.encode_text(value) if isinstance(value, str) else value
        except ConversationError as error:
            raise RequestFault(
                Field.INPUT, error.message, code="invalid_value", index=index
            ) from error
        if not ids:
            raise RequestFault(
                Field.INPUT,
                lambda name: (
                    f"Invalid '{name}': a text needs at least one token, and this one has none."
                ),
                code="invalid_value",
                index=index,
            )
        if len(ids) > self._context_length:
            raise self._too_long(f"{len(ids)} tokens", index)
        token_ids = range(self._runner.vocabulary_size)
        lowest, highest = min(ids), max(ids)
        unknown = lowest if lowest < 0 else highest
        if unknown not in token_ids:
            raise RequestFault(
                Field.INPUT,
                lambda name: (
                    f"Invalid token id in '{name}': {unknown}. This model's token ids go from 0 to "
                    f"{len(token_ids) - 1}; those of another tokenizer mean nothing to it, so "
                    "send the text instead."
                ),
                code="invalid_value",
                index=index,
            )
        return ids

    def _too_long(self, size: str, index: int) -> RequestFault:
        return RequestFault(
            Field.INPUT,
            lambda name: (
                f"This model's maximum context length is {self._context_length} tokens, however "
                f"you requested {size} (in '{name}'). Please reduce the length of this input."
            ),
            code="context_length_exceeded",
            index=index,
        )

    def _forward_chunk(
        self, rows: Sequence[Sequence[int]], past: Past
    ) -> Slices[tuple[Tensor, Past]]:
        """Sums of hidden states: (rows, hidden_size), and the keys and values so far.

        Rows are padded at their end, where causal attention does not see it; or one row continues
        after its `past`.
        """
        longest = max(map(len, rows))
        padded = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros(len(rows), longest, 1)
        for at, row in enumerate(rows):
            padded[at, : len(row)] = torch.tensor(row)
            mask[at, : len(row)] = 1
        hidden, past = yield from self._runner.hidden_states(padded, past, self._adapter)
        return (hidden.float().cpu() * mask).sum(dim=1), past


def batches_by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar lengths, each of at most `tokens` tokens with padding."""
    batch: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[at] > tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
