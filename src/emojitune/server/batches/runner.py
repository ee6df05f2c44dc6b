"""The batch runner: a few requests at a time, each as if its project had sent it over HTTP.

Its only state is in the database: a batch that a killed server left unfinished continues with the
lines that have no result.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path

import anyio
from anyio import CancelScope, to_thread

from emojitune.errors import InvalidStateError, NotFoundError
from emojitune.jobs.states import BATCH
from emojitune.server.batches.input import BatchRequest, read_requests, validate_input
from emojitune.server.batches.output import not_run_result, response_result, stream_refused_result
from emojitune.server.http.asgi_client import AsgiResponse
from emojitune.store.batches import Batch, BatchError, BatchStore
from emojitune.store.files import FileStore

_MAX_CONCURRENT_REQUESTS = 2  # of all batches together, so that interactive chats hardly notice
_POLL_SECONDS = 10.0  # a retry after a failed step; new batches wake it
_RECORD_CHUNK = 500

_log = logging.getLogger(__name__)

PostRequest = Callable[[str, str, bytes], Awaitable[AsgiResponse]]


class BatchRunner:
    """Runs all unfinished batches, from `start` to `stop`.

    Args:
        batches: The batches of all projects.
        files_of: The file store of a project.
        post: Sends a JSON body to a path of the application, on behalf of a project.
    """

    def __init__(
        self, batches: BatchStore, files_of: Callable[[str], FileStore], post: PostRequest
    ) -> None:
        self._batches = batches
        self._files_of = files_of
        self._post = post
        self._handlers: dict[str, Callable[[Batch], Awaitable[None]]] = {
            "validating": self._validate,
            "in_progress": self._execute,
            "finalizing": self._finalize,
            "cancelling": self._cancel,
        }
        self._processing: set[str] = set()
        self._executing: dict[str, CancelScope] = {}

    def start(self) -> None:
        """Start in the running event loop, with the batches that are unfinished."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._slots = anyio.Semaphore(_MAX_CONCURRENT_REQUESTS)
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """Stop; requests without a result are run after the next start."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def wake(self) -> None:
        """Look for new batches; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._changed.set)

    def interrupt(self, batch_id: str) -> None:
        """Stop running a batch that is being cancelled; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._interrupt, batch_id)

    def _interrupt(self, batch_id: str) -> None:
        if scope := self._executing.get(batch_id):
            scope.cancel()
        self._changed.set()

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                self._changed.clear()
                for batch_id in await self._unfinished():
                    if batch_id not in self._processing:
                        self._processing.add(batch_id)
                        tasks.start_soon(self._process, batch_id)
                with anyio.move_on_after(_POLL_SECONDS):
                    await self._changed.wait()

    async def _unfinished(self) -> Iterable[str]:
        try:
            return await to_thread.run_sync(self._batches.unfinished)
        except Exception:  # the next poll may succeed
            _log.exception("The batches could not be read.")
            return ()

    async def _process(self, batch_id: str) -> None:
        try:
            while True:
                batch = await to_thread.run_sync(self._batches.get, batch_id)
                handler = self._handlers.get(batch.status)
                if handler is None:
                    return
                # A batch may be cancelled during any step, whose own transition then fails.
                with contextlib.suppress(InvalidStateError):
                    await handler(batch)
        except Exception:  # a full disk, say: the next poll retries
            _log.exception("Batch %s could not continue.", batch_id)
        finally:
            self._processing.discard(batch_id)

    async def _validate(self, batch: Batch) -> None:
        await to_thread.run_sync(self._validate_now, batch)

    def _validate_now(self, batch: Batch) -> None:
        try:
            report = validate_input(self._input_path(batch), batch.endpoint)
        except (NotFoundError, FileNotFoundError):
            self._fail(batch)
            return
        if report.errors:
            BATCH.move(self._batches, batch.id, "failed", errors=report.errors)
        else:
            changes = {"total": report.total, "model": report.model}
            BATCH.move(self._batches, batch.id, "in_progress", **changes)

    async def _execute(self, batch: Batch) -> None:
        try:
            rows = await to_thread.run_sync(self._pending_requests, batch)
        except NotFoundError:
            await to_thread.run_sync(self._fail, batch)
            return
        with (
            contextlib.closing(rows),
            anyio.move_on_after(self._batches.seconds_left(batch)) as scope,
            self._interruptible(batch.id, scope),
        ):
            # A cancellation from before the scope was registered interrupts nothing.
            if (await to_thread.run_sync(self._batches.get, batch.id)).status == batch.status:
                await self._run_all(batch, rows)
        if not scope.cancelled_caught:
            await to_thread.run_sync(BATCH.move, self._batches, batch.id, "finalizing")
        elif self._batches.seconds_left(batch) <= 0:
            await to_thread.run_sync(self._expire, batch)

    @contextlib.contextmanager
    def _interruptible(self, batch_id: str, scope: CancelScope) -> Iterator[None]:
        self._executing[batch_id] = scope
        try:
            yield
        finally:
            del self._executing[batch_id]

    async def _run_all(self, batch: Batch, rows: Iterator[tuple[int, BatchRequest]]) -> None:
        reading = anyio.Lock()

        async def worker() -> None:
            while True:
                async with reading:
                    row = await to_thread.run_sync(next, rows, None)
                if row is None:
                    return
                await self._run_one(batch, *row)

        async with anyio.create_task_group() as workers:
            for _ in range(_MAX_CONCURRENT_REQUESTS):
                workers.start_soon(worker)

    async def _run_one(self, batch: Batch, line: int, request: BatchRequest) -> None:
        if request.body.get("stream"):
            result = stream_refused_result(line, request)
        else:
            async with self._slots:
                body = await to_thread.run_sync(request.body_as_json)
                response = await self._post(batch.project, batch.endpoint, body)
            result = response_result(line, request, response)
        await to_thread.run_sync(self._batches.record, batch.id, [result])

    async def _finalize(self, batch: Batch) -> None:
        await to_thread.run_sync(self._finish, batch, "completed")

    async def _cancel(self, batch: Batch) -> None:
        await to_thread.run_sync(self._cancel_now, batch)

    def _cancel_now(self, batch: Batch) -> None:
        self._record_not_run(
            batch, "batch_cancelled", "The batch was cancelled before this request ran."
        )
        self._finish(batch, "cancelled")

    def _expire(self, batch: Batch) -> None:
        self._record_not_run(
            batch,
            "batch_expired",
            "This request could not be executed before the completion window expired.",
        )
        self._finish(batch, "expired")

    def _fail(self, batch: Batch) -> None:
        message = f"The input file {batch.input_file_id} was deleted before all of it was run."
        error = BatchError("input_file_not_found", message, "input_file_id", None)
        self._finish(batch, "failed", errors=[error])

    def _pending_requests(self, batch: Batch) -> Generator[tuple[int, BatchRequest], None, None]:
        """The requests that have no result yet, with their line numbers."""
        path, done = self._input_path(batch), self._batches.completed_lines(batch.id)
        return ((line, request) for line, request in read_requests(path) if line not in done)

    def _input_path(self, batch: Batch) -> Path:
        return self._files_of(batch.project).path(batch.input_file_id)

    def _record_not_run(self, batch: Batch, code: str, message: str) -> None:
        """Record a result for each request that was not run, with the reason."""
        if not batch.total:  # its input was never validated
            return
        with contextlib.suppress(NotFoundError, FileNotFoundError):
            not_run = (
                not_run_result(line, row, code, message)
                for line, row in self._pending_requests(batch)
            )
            while results := list(islice(not_run, _RECORD_CHUNK)):
                self._batches.record(batch.id, results)

    def _finish(self, batch: Batch, status: str, **changes: object) -> None:
        """Write the output and error files that are missing, and end the batch."""
        batch = self._batches.get(batch.id)
        if batch.completed and batch.output_file_id is None:
            self._write(batch, failed=False)
        if batch.failed and batch.error_file_id is None:
            self._write(batch, failed=True)
        BATCH.move(self._batches, batch.id, status, **changes)

    def _write(self, batch: Batch, *, failed: bool) -> None:
        contents = self._batches.result_lines(batch.id, failed=failed)
        files = self._files_of(batch.project)
        with files.receive(content.encode() + b"\n" for content in contents) as incoming:
            files.keep(
                incoming,
                filename=f"{batch.id}_{'error' if failed else 'output'}.jsonl",
                purpose="batch_output",
                expires_after=batch.output_seconds,
                then=lambda connection, stored: self._batches.set_output_file(
                    connection, batch.id, stored, failed=failed
                ),
            )
