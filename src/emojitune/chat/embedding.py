"""Texts to vectors: the mean of the model's last hidden states, scaled to length 1.

Runs in the executor of the chat, a bounded number of tokens at a time, so that replies go on in
between: short texts in batches, a long one in pieces.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emojitune.chat.reply import Embedded
from emojitune.errors import InvalidRequestError
from emojitune.models.loader import LoadedModel

MAX_TOKENS = 300_000  # of one request, as on the hosted API
_PASS_TOKENS = 512  # padding included; half a second on two cores


class Embedder:
    """Embeds with one loaded model; any number of threads may ask at once."""

    def __init__(self, model: LoadedModel, executor: Executor) -> None:
        module: Any = model.module
        self._body = module.base_model  # without the head: nobody asks for the next token
        self._vocabulary_size, self._size = module.get_input_embeddings().weight.shape
        self._encode = model.renderer.encode_text
        self._device = model.precision.device
        self._context_length = model.context_length
        self._executor = executor

    def embed(
        self, inputs: Sequence[str | Sequence[int]], cancelled: Callable[[], bool]
    ) -> Embedded | None:
        """A vector for each input; None when `cancelled` came true before the end.

        Raises:
            InvalidRequestError: An input has no tokens, unknown ones or too many.
        """
        ids = [self._ids(value, f"input[{at}]") for at, value in enumerate(inputs)]
        total = sum(map(len, ids))
        if total > MAX_TOKENS:
            raise InvalidRequestError(
                f"Requested {total} tokens, max {MAX_TOKENS} tokens per request. Send fewer "
                "inputs at a time.",
                code="max_tokens_per_request",
                param="input",
            )
        vectors = np.zeros((len(ids), self._size), dtype=np.float32)
        for batch in batches([len(row) for row in ids], _PASS_TOKENS):
            sums = self._sums([ids[at] for at in batch], cancelled)
            if sums is None:
                return None
            # The length falls away with the scale, so the sum does for the mean.
            vectors[batch] = torch.nn.functional.normalize(sums, dim=-1).numpy()
        return Embedded(vectors, total)

    def _sums(self, rows: Sequence[Sequence[int]], cancelled: Callable[[], bool]) -> Tensor | None:
        """The sum of each row's last hidden states; only a row that is alone may be long."""
        sums = torch.zeros(len(rows), self._size)
        cache: Any = None
        for start in range(0, max(map(len, rows)), _PASS_TOKENS):
            if cancelled():
                return None
            piece = [row[start : start + _PASS_TOKENS] for row in rows]
            found, cache = self._executor.submit(self._pass, piece, cache).result()
            sums += found
        return sums

    def _ids(self, value: str | Sequence[int], place: str) -> Sequence[int]:
        ids = self._encode(value) if isinstance(value, str) else value
        if not ids:
            raise InvalidRequestError(
                f"Invalid '{place}': a text needs at least one token, and this one has none.",
                code="invalid_value",
                param="input",
            )
        if len(ids) > self._context_length:
            raise InvalidRequestError(
                f"This model's maximum context length is {self._context_length} tokens, however "
                f"you requested {len(ids)} tokens ({len(ids)} in '{place}'). Please reduce the "
                "length of this input.",
                code="context_length_exceeded",
                param="input",
            )
        unknown = next((i for i in ids if not 0 <= i < self._vocabulary_size), None)
        if unknown is not None:
            raise InvalidRequestError(
                f"Invalid token id in '{place}': {unknown}. This model's token ids go from 0 to "
                f"{self._vocabulary_size - 1}; those of another tokenizer mean nothing to it, so "
                "send the text instead.",
                code="invalid_value",
                param="input",
            )
        return ids

    @torch.inference_mode()
    def _pass(self, rows: Sequence[Sequence[int]], cache: Any) -> tuple[Tensor, Any]:
        """Sums of a batch, whose rows are padded behind, where no token of theirs looks; or of the
        next piece of one row, behind what the cache holds of it."""
        longest = max(map(len, rows))
        padded = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros(len(rows), longest, dtype=torch.int64)
        for at, row in enumerate(rows):
            padded[at, : len(row)] = torch.tensor(row)
            mask[at, : len(row)] = 1
        out = self._body(
            input_ids=padded.to(self._device),
            # What stands in the cache is seen whole.
            attention_mask=mask.to(self._device) if cache is None else None,
            past_key_values=cache,
            use_cache=len(rows) == 1,
        )
        hidden = out.last_hidden_state.float().cpu()
        return (hidden * mask[:, :, None]).sum(dim=1), out.past_key_values


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The numbers of rows of like length, as many as fit into `tokens` once they are padded."""
    batch: list[int] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[at] > tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch
