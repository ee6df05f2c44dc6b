"""Asks an old model and keeps its replies, one by one or as a batch.

The line of each question is appended to a partial file, which the next run continues; the file gets
its name when every question has its replies.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from emojitune.disk import disk_errors, make_private_folder, open_private
from emojitune.errors import ProviderError
from emojitune.workflow.rescue.copy import BATCH_TERMINAL, Report
from emojitune.workflow.rescue.folder import Part, RescueFolder
from emojitune.workflow.rescue.pages import Item
from emojitune.workflow.rescue.questions import Question, Survey, batch_responses
from emojitune.workflow.rescue.source import RefusedError, Source

WORKERS = 8  # concurrent requests: a hosted API limits requests per minute
POLL_SECONDS = 30.0
BATCH_MARK = "emojitune_replies"  # metadata of a batch: the digest of what it asks

_OF_ONE_QUESTION = frozenset({400, 413, 422})  # any other refusal would meet every question
_SOURCE = "/chat/completions"


class Replies:
    """The replies of one model in a folder."""

    def __init__(self, folder: RescueFolder, survey: Survey) -> None:
        self._folder = folder
        self._survey = survey
        self._part = Part("reply", survey.model)
        self._path = folder.path / folder.place(self._part, "")
        self._partial = self._path.with_suffix(".partial.jsonl")
        self._lines = _read(self._path) | _read(self._partial)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def missing(self) -> Survey:
        """What has yet to be asked: refused questions are asked again."""
        answered = {key for key, line in self._lines.items() if not _is_refused(line)}
        left = (one for one in self._survey.questions if one.key not in answered)
        return replace(self._survey, questions=tuple(left))

    @property
    def refused(self) -> int:
        """The number of questions that the provider refused to answer."""
        lines = (self._lines.get(one.key, "{}") for one in self._survey.questions)
        return sum(map(_is_refused, lines))

    def ask(self, source: Source, report: Report) -> None:
        """Ask what is missing, request by request.

        Raises:
            ProviderError: The model cannot be asked, or the provider cannot be reached.
        """
        survey = self.missing
        done, total = len(self._survey.questions) - len(survey.questions), len(survey.questions)
        report("replies", done, done + total)
        pool = ThreadPoolExecutor(WORKERS)
        try:
            futures = {pool.submit(_ask, source, survey, one): one for one in survey.questions}
            with self._appending() as append:
                for number, future in enumerate(as_completed(futures), start=1):
                    append(futures[future], future.result())
                    report("replies", done + number, done + total)
        finally:
            pool.shutdown(cancel_futures=True)
        self._finish()

    def ask_batch(self, source: Source, report: Report, sleep: Callable[[float], None]) -> None:
        """Ask what is missing as a batch, which may take a day; one that was started is continued.

        Raises:
            ProviderError: The batch has no replies, or the provider cannot be reached.
        """
        survey = self.missing
        if survey.questions:
            try:
                found = _ask_batch(source, survey, report, sleep)
            except RefusedError as error:
                message = f"The batch cannot be read ({error.status}): {error.message}"
                raise ProviderError(message, code=error.code) from None
            with self._appending() as append:
                for question in survey.questions:
                    ids = survey.custom_ids(question)
                    if all(one in found for one in ids):
                        append(question, [found[one] for one in ids])
        self._finish()

    @contextmanager
    def _appending(self) -> Iterator[Callable[[Question, Sequence[str]], None]]:
        """A function that appends a question with its responses to the partial file."""
        with disk_errors(self._path):
            make_private_folder(self._partial.parent)
            _drop_torn_line(self._partial)
            with open_private(self._partial, "a") as file:

                def append(question: Question, responses: Sequence[str]) -> None:
                    line = self._survey.record(question, self._folder.now, responses)
                    self._lines[question.key] = line
                    file.write(f"{line}\n")
                    file.flush()

                yield append

    def _finish(self) -> None:
        """Write the file under its name, in the order of the questions.

        Raises:
            ProviderError: Questions are left, as of a batch that expired.
        """
        order = [one.key for one in self._survey.questions]
        left = [key for key in order if key not in self._lines]
        if left:
            raise ProviderError(
                f"{len(left)} of {len(order)} questions have no reply. Run the same command again: "
                "it asks these alone."
            )
        lines = [self._lines[key] for key in dict.fromkeys([*order, *self._lines])]
        text = "".join(f"{line}\n" for line in lines).encode()
        if not self._folder.holds(self._part, text):
            with self._folder.write(self._part, "", _SOURCE) as draft:
                draft.file.write(text)
                draft.more = {"items": len(lines)}
        self._partial.unlink(missing_ok=True)


def _ask(source: Source, survey: Survey, question: Question) -> list[str]:
    """The JSON texts of the responses to a question; an object with an error where refused.

    Raises:
        ProviderError: Every question would be refused.
    """
    responses = []
    for body in survey.bodies(question):
        try:
            responses.append(source.chat(body).text)
        except RefusedError as error:
            if error.status not in _OF_ONE_QUESTION:
                raise ProviderError(
                    f"{survey.deployment} cannot be asked ({error.status}): {error.message}",
                    code=error.code,
                ) from None
            refused = {"status": error.status, "code": error.code, "message": error.message}
            responses.append(json.dumps({"error": refused}))
    return responses


def _ask_batch(
    source: Source, survey: Survey, report: Report, sleep: Callable[[float], None]
) -> dict[str, str]:
    """The JSON text of each response of a batch, by its custom_id."""
    batch = _started(source, survey)
    if batch is None:
        batch = source.create_batch(survey.batch_lines(), {BATCH_MARK: survey.digest})
    while batch.value.get("status") not in BATCH_TERMINAL:
        counts = batch.value.get("request_counts") or {}
        report("requests of the batch", counts.get("completed", 0), counts.get("total"))
        sleep(POLL_SECONDS)
        batch = source.batch(batch.id)
    return _batch_responses(source, batch)


def _started(source: Source, survey: Survey) -> Item | None:
    """A batch that asks the same and has not failed."""
    for batch in source.batches():
        metadata = batch.value.get("metadata")
        mark = metadata.get(BATCH_MARK) if isinstance(metadata, dict) else None
        if mark == survey.digest and batch.value.get("status") not in ("failed", "cancelled"):
            return batch
    return None


def _batch_responses(source: Source, batch: Item) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("output_file_id", "error_file_id"):
        file_id = batch.value.get(name)
        if isinstance(file_id, str):
            with TemporaryFile() as file:
                source.download(file_id, file, None)
                file.seek(0)
                found |= batch_responses(file)
    if not found:
        raise ProviderError(
            f"The batch {batch.id} is {batch.value.get('status')} and has no replies: "
            f"{json.dumps(batch.value.get('errors'))}. Ask without --batch."
        )
    return found


def _read(path: Path) -> dict[str, str]:
    """The lines of a file by their keys, without one that is incomplete."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            found[json.loads(line)["key"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _is_refused(line: str) -> bool:
    responses: list[dict[str, Any]] = json.loads(line).get("responses", [])
    return any("choices" not in response for response in responses)


def _drop_torn_line(path: Path) -> None:
    """Cut off what a killed process wrote of its last line."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
