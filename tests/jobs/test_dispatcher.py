import json
import time
from pathlib import Path

import pytest

from emojitune.jobs import dispatcher
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.jobs.worker import open_stores
from emojitune.settings import Settings


def test_a_worker_that_had_to_be_killed_leaves_its_job_to_the_next_server(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_STOP_WITHIN", 0.0)
    settings = Settings(home=tmp_path, base_model=str(tiny_base), device="cpu", threads=1)
    stores = open_stores(settings, "default")
    roles = ("user", "assistant")
    row = {"messages": [{"role": role, "content": "(yawn)"} for role in roles]}
    file = stores.files.add(
        [(json.dumps(row) + "\n").encode()] * 10, filename="f.jsonl", purpose="fine-tune"
    )
    job = stores.jobs.create(
        model="gpt-3.5-turbo-0125", training_file=file.id, hyperparameters={"n_epochs": 1}
    )
    running = Dispatcher(settings)
    running.start()
    deadline = time.monotonic() + 60
    while stores.jobs.get(job.id).status != "running":  # it imports torch now, and hears nothing
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert stores.jobs.leased() == {job.id}
    running.stop()
    assert stores.jobs.leased() == set()
    assert stores.jobs.get(job.id).status == "running"
