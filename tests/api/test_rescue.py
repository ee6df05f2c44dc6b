"""`rescue` with a server of ours as the source: every object equal, byte by byte."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from servers import KEY
from training_jobs import SYSTEM, training_file, training_server, wait

from emojitune.dataset.validation import check_file
from emojitune.workflow.provider import connect
from emojitune.workflow.rescue.folder import Part, RescueFolder
from emojitune.workflow.rescue.questions import survey
from emojitune.workflow.rescue.rescue import open_source, rescue, rescue_replies


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[OpenAI]:
    with training_server(tmp_path_factory.mktemp("rescue") / "home", tiny_base) as opened:
        yield opened


def test_a_server_of_ours_is_copied_as_it_is(
    client: OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    path = training_file(tmp_path)
    good = client.files.create(file=path, purpose="fine-tune").id
    few = client.files.create(file=b'{"messages": []}\n', purpose="fine-tune").id
    jobs = [
        client.fine_tuning.jobs.create(
            training_file=file, model="gpt-3.5-turbo", hyperparameters={"n_epochs": 2}
        )
        for file in (good, few)
    ]
    done, failed = (wait(client, job.id) for job in jobs)
    assert (done.status, failed.status) == ("succeeded", "failed")
    model = done.fine_tuned_model or ""
    chat = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], store=True
    )

    folder = tmp_path / "rescued"
    with connect(str(client.base_url)) as connection:
        source = open_source(connection, print)
        rescue(source, folder, lambda *progress: None, chats=True)
        asked = survey(model, check_file(path).examples[:3], is_emojitune=connection.is_emojitune)
        kept = rescue_replies(source, folder, asked, lambda *progress: None)

    copied = RescueFolder(folder, lambda: 0.0)
    assert [entry for entry in copied.entries if entry.refused] == []
    for job in (done, failed):
        assert copied.read(Part("job", job.id)) == job.to_dict(mode="json")
        for part, listed in (
            ("events", client.fine_tuning.jobs.list_events(job.id)),
            ("checkpoints", client.fine_tuning.jobs.checkpoints.list(job.id)),
        ):
            entry = copied.entry(Part("job", job.id, part))
            assert entry is not None
            text = (folder / str(entry.path)).read_text(encoding="utf-8")
            assert list(map(json.loads, text.splitlines())) == [
                one.to_dict(mode="json") for one in listed
            ]
    for file in client.files.list():
        assert copied.read(Part("file", file.id)) == file.to_dict(mode="json")
        entry = copied.entry(Part("file", file.id, "content"))
        assert entry is not None
        content = (folder / str(entry.path)).read_bytes()
        assert content == client.files.content(file.id).read()
        if file.purpose == "fine-tune-results":
            entry = copied.entry(Part("file", file.id, "csv"))
            assert entry is not None
            assert (folder / str(entry.path)).read_bytes() == base64.b64decode(content)
    assert copied.ids("model") == [model]
    assert copied.ids("chat") == [chat.id]

    lines = [json.loads(line) for line in kept.path.read_text(encoding="utf-8").splitlines()]
    assert (kept.questions, kept.refused, len(lines)) == (3, 0, 3)
    for line in lines:
        greedy, samples = line["responses"]
        assert line["messages"][0] == SYSTEM
        assert len(greedy["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 5
        assert len(samples["choices"]) == 4
