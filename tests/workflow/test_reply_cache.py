"""Replies of an untuned base model are cached on disk."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from fake_api import MODEL, FakeApi
from openai import OpenAI

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation.metrics import Reply
from emojitune.evaluation.protocol import FREE
from emojitune.models.catalog import pinned_weights
from emojitune.settings import Settings
from emojitune.workflow import reply_cache
from emojitune.workflow.provider import Connection
from emojitune.workflow.reply_cache import ReplyCache, ReplyCaches, open_reply_caches
from emojitune.workflow.score import Candidate, label_candidates, score

HELLO, BYE = (Message("user", "hello"),), (Message("user", "bye"),)
REPLY = Reply("(wave)", ("(wave)", "(party)"), confidence=0.5, seconds=1.5)


class RecordingModel:
    """Replies, and records its prompts."""

    def __init__(self) -> None:
        self.prompts: list[Sequence[Message]] = []

    def __call__(self, messages: Sequence[Message]) -> Reply:
        self.prompts.append(messages)
        return REPLY


def test_each_prompt_is_completed_once(tmp_path: Path) -> None:
    model = RecordingModel()
    first = ReplyCache(tmp_path, "base")
    complete = first.wrap(model)
    assert [complete(HELLO), complete(BYE), complete(HELLO)] == [REPLY] * 3
    assert not first.hit, "the reply is of this run"
    second = ReplyCache(tmp_path, "base")
    complete = second.wrap(model)
    assert [complete(BYE), complete(HELLO)] == [REPLY, REPLY]
    assert second.hit
    assert model.prompts == [HELLO, BYE]


@pytest.mark.parametrize(
    ("messages", "key", "code_version"),
    [
        ((Message("system", "s"), *HELLO), "base", "1"),
        ((Message("assistant", "hello"),), "base", "1"),
        (HELLO, "other base", "1"),
        (HELLO, "base", "2"),
    ],
)
def test_another_prompt_key_or_program_is_a_miss(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: tuple[Message, ...],
    key: str,
    code_version: str,
) -> None:
    model = RecordingModel()
    monkeypatch.setattr(reply_cache, "_code_version", lambda: "1")
    ReplyCache(tmp_path, "base").wrap(model)(HELLO)
    monkeypatch.setattr(reply_cache, "_code_version", lambda: code_version)
    ReplyCache(tmp_path, key).wrap(model)(messages)
    assert model.prompts == [HELLO, messages]


def test_a_damaged_line_is_a_miss(tmp_path: Path) -> None:
    model = RecordingModel()
    complete = ReplyCache(tmp_path, "base").wrap(model)
    complete(HELLO)
    complete(BYE)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-9] + b'\n[]\n{"key": 1}\n\xff\n')
    again = ReplyCache(tmp_path, "base").wrap(model)
    assert [again(HELLO), again(BYE), again(BYE)] == [REPLY] * 3
    assert model.prompts == [HELLO, BYE, BYE]


def test_an_unwritable_folder_is_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    model = RecordingModel()
    complete = ReplyCache(tmp_path / "file" / "folder", "base").wrap(model)
    assert [complete(HELLO), complete(HELLO)] == [REPLY, REPLY]
    assert model.prompts == [HELLO]


def test_a_cached_candidate_sends_no_request(fake_api: FakeApi, tmp_path: Path) -> None:
    examples = [TrainingExample((*said, Message("assistant", "(wave)"))) for said in (HELLO, BYE)]
    rows = [Candidate("base", FREE), Candidate("tuned", FREE)]

    def models_requested() -> list[str]:
        fake_api.chats.clear()
        caches = ReplyCaches({rows[0]: ReplyCache(tmp_path, "base")})
        table = score(client, rows, examples, ("(wave)",), is_emojitune=True, wrap=caches.wrap)
        assert len({row.estimates["in_vocabulary"].value for row in table}) == 1
        return [chat["model"] for chat in fake_api.chats]

    with OpenAI(base_url=fake_api.url, api_key="k", max_retries=0) as client:
        assert models_requested() == ["base"] * 4 + ["tuned"] * 6
        assert models_requested() == ["tuned"] * 6


def test_only_pinned_weights_on_our_own_server_are_cached(tmp_path: Path) -> None:
    def cached(base: str, server: object, **settings: str) -> list[str]:
        """The decodings of the base whose replies are cached."""
        given = Settings(cache=tmp_path, **settings)  # type: ignore[arg-type]
        with OpenAI(api_key="k") as client:
            connection = Connection(client, "local", True, server=server)  # type: ignore[arg-type]
            candidates = label_candidates(MODEL, base=base, vocabulary=("(wave)",))
            pinned = partial(pinned_weights, settings=given)
            opened = open_reply_caches(connection, candidates, given, pinned)
        assert all(candidate.model == base for candidate in opened.caches)
        return [candidate.decoding for candidate in opened.caches]

    ours = object()
    assert cached("gpt-3.5-turbo", ours) == ["free", "constrained"]
    assert cached("gpt-3.5-turbo", None) == [], "another program may run there"
    assert cached("ft:gpt-3.5-turbo-0125:local::x", ours) == []
    assert cached("gpt-3.5-turbo", ours, base_model=str(tmp_path)) == [], "a folder may change"
