"""Running a grader: in slices, in threads of its own, until the client has left."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from emojitune.evaluation.graders.graders import Grade, Grader
from emojitune.server.context import WorkerThreads
from emojitune.server.fine_tuning import graders
from emojitune.server.fine_tuning.graders import RunGrader

CHECK = {"type": "string_check", "name": "c", "input": "a", "reference": "a", "operation": "eq"}


def test_grading_ends_after_its_client_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def endless(
        grader: Grader, sample: str, item: Mapping[str, Any], pause: Callable[[], None]
    ) -> Grade:
        begun.set()
        while True:
            pause()

    async def scenario() -> None:
        context: Any = SimpleNamespace(threads=WorkerThreads(), project="p")
        body = RunGrader.model_validate({"grader": CHECK, "model_sample": "a"})
        with monkeypatch.context() as patched:
            patched.setattr(graders, "grade", endless)
            left = asyncio.create_task(graders._grade(body, context))
            assert await asyncio.to_thread(begun.wait, 10)
            left.cancel()
            with pytest.raises(asyncio.CancelledError):
                await left
        # The project has one thread for grading.
        response = await asyncio.wait_for(graders._grade(body, context), 10)
        assert response.status_code == 200

    asyncio.run(scenario())
