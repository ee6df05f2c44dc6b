"""Chunked prefill: long forward requests as a row of passes over few tokens each.

    requests:    ids of 0 ............................  ids of 1 .......
    passes:      ├── chunk ──┼── chunk ──┼── chunk ───────┼── chunk ───┤

As in Sarathi (Agrawal et al., 2023, arXiv:2308.16369), memory is linear in a prompt, and other
requests go on meanwhile. There their tokens join the passes over chunks, which saves a GPU time;
here their passes come between the layers of a chunk, so that they wait less, and no result depends
on what else is computed.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from emojitune.inference.engine.batch import Adapter, Slots
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, KVCache
from emojitune.inference.engine.slices import Slices


def forward_in_chunks(
    cache: KVCache[Adapter],
    requests: Sequence[ForwardRequest],
    adapter: Adapter | None,
    chunk_tokens: int,
) -> Slices[list[ForwardResult]]:
    """The results of a group of requests, in passes over at most `chunk_tokens` tokens.

    A computation that is closed before its end releases its slots.
    """
    partial = [_PartialRequest(request) for request in requests]
    try:
        for chunk in _chunks(partial, chunk_tokens):
            pieces = [request.next_piece(count) for request, count in chunk]
            [results] = yield from cache.forward_slices([pieces], [adapter])
            for (request, _), result in zip(chunk, results, strict=True):
                request.add(result)
    except BaseException:
        cache.release([request.new_slots for request in partial])
        raise
    return [request.result() for request in partial]


def _chunks(
    requests: Sequence["_PartialRequest"], chunk_tokens: int
) -> Iterator[list[tuple["_PartialRequest", int]]]:
    """Requests with the number of their next ids, in chunks of at most `chunk_tokens` ids."""
    chunk: list[tuple[_PartialRequest, int]] = []
    room = chunk_tokens
    for request in requests:
        remaining = request.remaining
        while remaining:
            count = min(room, remaining)
            chunk.append((request, count))
            remaining, room = remaining - count, room - count
            if not room:
                yield chunk
                chunk, room = [], chunk_tokens
    if chunk:
        yield chunk


class _PartialRequest:
    """A forward request, of whose ids the first have been computed."""

    def __init__(self, request: ForwardRequest) -> None:
        self._request = request
        self._path = request.parent
        self._logprobs: list[Tensor] = []
        self._hidden_state: Tensor | None = None

    @property
    def new_slots(self) -> Slots:
        """The slots of the computed ids."""
        return self._path.slots[len(self._request.parent) :]

    @property
    def remaining(self) -> int:
        """How many ids have not been computed."""
        return len(self._request.ids) - len(self.new_slots)

    def next_piece(self, count: int) -> ForwardRequest:
        """The request of the next `count` ids, with their part of the requested results."""
        request, start = self._request, len(self.new_slots)
        stop = start + count
        rows = [None] if request.logprob_tokens is None else request.logprob_tokens
        before_rows = len(request.ids) - len(rows)
        hidden_at = request.hidden_at
        return ForwardRequest(
            self._path,
            request.ids[start:stop],
            rows[max(0, start - before_rows) : max(0, stop - before_rows)],
            hidden_at=(
                hidden_at - start if hidden_at is not None and start <= hidden_at < stop else None
            ),
        )

    def add(self, result: ForwardResult) -> None:
        """Take in the result of the piece that was requested last."""
        self._path = result.path
        self._logprobs += result.logprobs
        if result.hidden_state is not None:
            self._hidden_state = result.hidden_state

    def result(self) -> ForwardResult:
        return ForwardResult(self._path, self._logprobs, self._hidden_state)
