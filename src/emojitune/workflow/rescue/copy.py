"""What is copied from an account, in which order, and what is left alone because it is there.

Lists come first, so that what is left is known; then what belongs to jobs, and the rest. A refusal
concerns one object: it is recorded, and the copy goes on.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from emojitune.workflow.progress import TERMINAL
from emojitune.workflow.rescue.folder import Part, RescueFolder
from emojitune.workflow.rescue.pages import Item
from emojitune.workflow.rescue.result_files import decode_csv
from emojitune.workflow.rescue.source import RefusedError, Source

Report = Callable[[str, int, int | None], None]
"""Called with (name, done, total) during each step; the total of a list is unknown."""

BATCH_TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_FILE_PENDING = frozenset({"uploaded", "pending", "running"})
_BATCH_FILES = ("input_file_id", "output_file_id", "error_file_id")
# Purposes whose content OpenAI gives to nobody: asking once more changes nothing.
_NEVER_SENT = frozenset({"assistants", "user_data"})
_RESULTS = "fine-tune-results"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects with a list of its own.

    Attributes:
        title: Its name in the plural, for progress.
        source: The path of one of them, with `{}` for its id.
        file: The name of the file for the object itself.
        is_final: Whether an object can no longer change.
    """

    name: str
    title: str
    source: str
    file: str
    is_final: Callable[[dict[str, Any]], bool]


JOB = Kind(
    "job", "jobs", "/fine_tuning/jobs/{}", "job.json", lambda job: job.get("status") in TERMINAL
)
FILE = Kind(
    "file",
    "files",
    "/files/{}",
    "file.json",
    lambda file: file.get("status") not in _FILE_PENDING,
)
MODEL = Kind("model", "models", "/models/{}", "model.json", lambda model: False)
BATCH = Kind(
    "batch",
    "batches",
    "/batches/{}",
    "batch.json",
    lambda batch: batch.get("status") in BATCH_TERMINAL,
)
CHAT = Kind("chat", "stored completions", "/chat/completions/{}", "chat.json", lambda chat: True)


class Copy:
    """A copy of an account into a folder."""

    def __init__(self, source: Source, folder: RescueFolder, report: Report) -> None:
        self._source = source
        self._folder = folder
        self._report = report

    def run(self, *, chats: bool) -> None:
        """Copy everything that is not there yet; stored completions only if `chats`."""
        self._list(JOB, self._source.jobs)
        self._list(FILE, self._source.files)
        self._models()
        self._list(BATCH, self._source.batches)
        if chats:
            self._list(CHAT, self._source.chats)
        jobs = self._folder.ids("job")
        for job in self._counted("events and checkpoints of jobs", jobs):
            self._job_log(job)
        for file in self._counted("contents of files", self._files_in_order(jobs)):
            self._content(file)
        if chats:
            for chat in self._counted("messages", self._folder.ids("chat")):
                part = Part("chat", chat, "messages")
                self._lines(part, f"{CHAT.source.format(chat)}/messages", self._source.messages)

    def _list(self, kind: Kind, fetch: Callable[[], Iterator[Item]]) -> None:
        """Store all objects of a list that are new or may have changed."""
        path = kind.source.removesuffix("/{}")
        place = 0
        with self._refusals(Part("list", kind.title), path):
            for place, item in enumerate(fetch(), start=1):
                if item.id:
                    self._store(kind, item)
                self._report(kind.title, place, None)
        self._report(kind.title, place, place)

    def _store(self, kind: Kind, item: Item) -> None:
        """Store an object as received, unless it is there and the same or final."""
        part, text = Part(kind.name, item.id), _utf8(item.text)
        if self._folder.is_final(part) or self._folder.holds(part, text):
            return
        source, final = kind.source.format(item.id), kind.is_final(item.value)
        with self._folder.write(part, kind.file, source, final=final) as draft:
            draft.file.write(text)

    def _models(self) -> None:
        """The list of all models, which has their shutdown dates, and each fine-tuned model."""
        tuned = {name for job in self._folder.ids("job") if (name := self._model_of(job))}
        part, path = Part("list", "models"), "/models"
        listed: list[Item] = []
        with (
            self._refusals(part, path),
            self._folder.write(part, "models.jsonl", path, final=False) as draft,
        ):
            listed = list(self._source.models())
            draft.file.writelines(_utf8(item.line) + b"\n" for item in listed)
            draft.more = {"items": len(listed)}
        for item in listed:
            if item.id in tuned or is_fine_tuned(item.id):
                self._store(MODEL, item)
                tuned.discard(item.id)
        for name in sorted(tuned):
            with self._refusals(Part("model", name), MODEL.source.format(name)):
                self._store(MODEL, self._source.model(name))

    def _model_of(self, job_id: str) -> str:
        name = self._folder.read(Part("job", job_id)).get("fine_tuned_model")
        return name if isinstance(name, str) else ""

    def _job_log(self, job_id: str) -> None:
        entry = self._folder.entry(Part("job", job_id))
        final = entry is not None and entry.final
        source = JOB.source.format(job_id)
        self._lines(Part("job", job_id, "events"), f"{source}/events", self._source.events, final)
        self._lines(
            Part("job", job_id, "checkpoints"),
            f"{source}/checkpoints",
            self._source.checkpoints,
            final,
        )

    def _lines(
        self, part: Part, source: str, fetch: Callable[[str], Iterator[Item]], final: bool = True
    ) -> None:
        """Store a list that belongs to an object: each of its objects on one line, as received.

        If the provider refuses in the middle, as it does when the object was deleted meanwhile,
        what came before is kept, unless more of it is there from an earlier run.
        """
        if self._folder.is_final(part):
            return
        entry = self._folder.entry(part)
        before = entry.items or 0 if entry is not None and self._folder.stands(part) else 0
        name, count, refusal = f"{part.part}.jsonl", 0, None
        with self._refusals(part, source):
            with self._folder.write(part, name, source) as draft:
                try:
                    for item in fetch(part.id):
                        draft.file.write(_utf8(item.line) + b"\n")
                        count += 1
                except RefusedError as error:
                    refusal = error
                draft.more = {"items": count, "final": final and refusal is None}
                if refusal is not None and count <= before:
                    draft.drop()
            if refusal is not None:
                raise refusal

    def _files_in_order(self, jobs: list[str]) -> list[str]:
        """The ids of all files: those of jobs first, then those of batches, then the others."""
        named: dict[str, None] = {}
        for job in jobs:
            value = self._folder.read(Part("job", job))
            results = value.get("result_files")
            ids = [value.get("training_file"), value.get("validation_file")]
            named.update(dict.fromkeys(ids + (results if isinstance(results, list) else [])))
        for batch in self._folder.ids("batch"):
            value = self._folder.read(Part("batch", batch))
            named.update(dict.fromkeys(value.get(name) for name in _BATCH_FILES))
        listed = self._folder.ids("file")
        return [one for one in dict.fromkeys([*named, *listed]) if isinstance(one, str) and one]

    def _content(self, file_id: str) -> None:
        part, source = Part("file", file_id), FILE.source.format(file_id)
        if not self._folder.stands(part):  # named by a job or a batch, and not in the list
            with self._refusals(part, source):
                self._store(FILE, self._source.file(file_id))
        value = self._folder.read(part)
        purpose = value.get("purpose")
        is_result = purpose == _RESULTS
        content = Part("file", file_id, "content")
        entry = self._folder.entry(content)
        given_up = purpose in _NEVER_SENT and entry is not None and entry.refused is not None
        if not value or given_up:
            return
        if not self._folder.is_final(content):
            size = value.get("bytes")
            announced = size if isinstance(size, int) and not is_result else None
            name = value.get("filename")
            name = name if isinstance(name, str) and name else "content"
            name = f"{name}.received" if is_result else name
            source = f"{source}/content"
            with (
                self._refusals(content, source),
                self._folder.write(content, name, source) as draft,
            ):
                note = self._source.download(file_id, draft.file, announced)
                draft.more = {"note": note}
        if is_result and not self._folder.is_final(Part("file", file_id, "csv")):
            self._decode(content, value)

    def _decode(self, content: Part, value: dict[str, Any]) -> None:
        """Store a result file as CSV."""
        entry = self._folder.entry(content)
        if entry is None or entry.path is None:
            return
        name = value.get("filename")
        name = name if isinstance(name, str) and name else "step_metrics.csv"
        with (
            (self._folder.path / entry.path).open("rb") as received,
            self._folder.write(Part("file", content.id, "csv"), name, entry.source) as draft,
        ):
            if not decode_csv(received, draft.file):
                received.seek(0)
                draft.file.seek(0)
                draft.file.truncate()
                shutil.copyfileobj(received, draft.file)

    def _counted(self, name: str, ids: list[str]) -> Iterator[str]:
        for place, one in enumerate(ids):
            self._report(name, place, len(ids))
            yield one
            self._report(name, place + 1, len(ids))

    @contextmanager
    def _refusals(self, part: Part, source: str) -> Iterator[None]:
        """Record the provider's refusal of a part, or that it no longer refuses."""
        try:
            yield
        except RefusedError as error:
            self._folder.refuse(
                part, source, status=error.status, code=error.code, message=error.message
            )
        else:
            self._folder.accept(part)


def is_fine_tuned(model: str) -> bool:
    """Whether a model's name is one of a fine-tuned model, at OpenAI or at Azure."""
    return model.startswith("ft:") or ".ft-" in model


def _utf8(text: str) -> bytes:
    return text.encode("utf-8")
