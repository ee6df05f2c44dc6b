"""`emojitune rescue --replies`: an old model is asked while it lives."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import RunCommand
from rescue_source import KEY, MODEL, RescueSource, Trouble

from emojitune.cli import rescue as rescue_module
from emojitune.evaluation.protocol import MAX_TOKENS, SAMPLING_SEED
from emojitune.openai_calendar import CHAT_DOLLARS_PER_MILLION, chat_prices
from emojitune.workflow.rescue import replies
from emojitune.workflow.rescue.rescue import rescue_replies

GREEDY = {"max_tokens": MAX_TOKENS, "temperature": 0, "logprobs": True, "top_logprobs": 5}
SAMPLES = {"max_tokens": MAX_TOKENS, "temperature": 1, "n": 4, "seed": SAMPLING_SEED}
LABELS = ("(party)", "(wave)")


def write(path: Path, questions: list[str], replies: tuple[str, ...] = LABELS) -> Path:
    rows = [
        [
            {"role": "system", "content": "Only emojis!"},
            {"role": "user", "content": question},
            {"role": "assistant", "content": replies[number % len(replies)]},
        ]
        for number, question in enumerate(questions)
    ]
    text = "".join(json.dumps({"messages": messages}) + "\n" for messages in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "valid.jsonl", [f"question {'!' * number}" for number in range(20)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "rescued"


def lines(folder: Path, name: str = "ft_gpt-3.5-turbo-0125_personal_emoji-v1_CRqb7Ag7") -> Any:
    text = (folder / "replies" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_model_is_asked_as_evaluate_asks(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    done = emojitune(*words, "--yes")
    assert done.code == 0, done.err
    assert "20 conversation(s), 2 request(s) for each" in done.out
    assert f"What {source.url} charges for this model is not known here." in done.out
    assert len(source.asked) == 40
    for body in source.asked:
        assert body.pop("model") == MODEL
        assert [one["role"] for one in body.pop("messages")] == ["system", "user"]
        assert body in (GREEDY, SAMPLES)
    found = lines(folder)
    asked = [json.loads(line)["messages"][1] for line in data.read_text().splitlines()]
    assert [line["messages"][1] for line in found] == asked
    for line in found:
        greedy, samples = line["responses"]
        assert line["requests"] == [GREEDY, SAMPLES]
        assert line["model"] == MODEL
        assert greedy["choices"][0]["message"]["content"] == (
            f"({len(line['messages'][1]['content'])})"
        )
        assert len(samples["choices"]) == 4
    text = (folder / "replies").glob("*.jsonl").__next__().read_text(encoding="utf-8")
    assert '"logprob": -1E-1' in text, "as it was received"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    [entry] = [one for one in manifest["entries"] if one["kind"] == "reply"]
    assert (entry["id"], entry["items"]) == (MODEL, 20)
    assert manifest["is_complete"] is False, "nothing else was copied"
    everything = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert KEY not in done.out + done.err + everything

    again = emojitune(*words)
    assert again.code == 0, "nothing is left to pay for"
    assert len(source.asked) == 40


def test_it_asks_before_it_spends_money(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    done = emojitune(*words)
    assert done.code == 1
    assert "add --yes" in done.err
    counted = emojitune(*words, "--dry-run", "--json")
    assert json.loads(counted.out) == {"model": MODEL, "questions": 20, "missing": 20}
    assert source.asked == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("batch", "said"), [((), "at most about $4.10"), (("--batch",), "at most about $2.05")]
)
def test_the_price_is_known_at_openai_alone(
    emojitune: RunCommand,
    source: RescueSource,
    folder: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setattr(rescue_module, "OPENAI_URL", source.url)
    monkeypatch.setitem(CHAT_DOLLARS_PER_MILLION, "gpt-3.5-turbo", (0.0, 4_100_000 / 1200))
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    done = emojitune(*words, "--dry-run", *batch)
    assert "at most 1200 of replies" in done.out
    assert said in done.out


def test_an_interrupted_survey_asks_only_what_is_left(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    assert emojitune(*words, "--yes").code == 0
    whole = lines(folder)
    [path] = (folder / "replies").glob("*.jsonl")
    text = path.read_text(encoding="utf-8")
    path.unlink()
    partial = path.with_suffix(".partial.jsonl")
    partial.write_text("".join(text.splitlines(keepends=True)[:7]) + text[:99])
    source.asked.clear()
    assert emojitune(*words, "--yes").code == 0
    assert len(source.asked) == 2 * 13
    assert [line["key"] for line in lines(folder)] == [line["key"] for line in whole]
    assert not partial.exists()

    more = write(data.with_name("more.jsonl"), ["question ", "another one"])
    source.asked.clear()
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", more)
    assert emojitune(*words, "--yes").code == 0
    assert len(source.asked) == 2
    assert len(lines(folder)) == 21, "earlier replies stay"


def test_one_question_may_be_refused_but_not_the_model(
    emojitune: RunCommand, source: RescueSource, folder: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "valid.jsonl", ["first", "forbidden", "third"])
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    done = emojitune(*words, "--yes")
    assert done.code == 0, done.err
    assert "The provider refused to answer 1 of them." in done.out
    error = lines(folder)[1]["responses"][0]["error"]
    expected = {"status": 400, "code": "content_filter", "message": "The response was filtered."}
    assert error == expected
    source.asked.clear()
    assert emojitune(*words, "--yes").code == 0
    assert len(source.asked) == 2, "it is asked again"

    source.troubles = [Trouble("/chat/completions", 404, 99, message=f"No {MODEL} for {KEY}.")]
    words = ("rescue", folder, "--provider", source.url, "--replies", "gpt-4", "--data", data)
    done = emojitune(*words, "--yes")
    assert done.code == 1
    assert f"gpt-4 cannot be asked (404): No {MODEL} for [key]." in done.err


def test_limits_are_waited_out_while_asking(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    source.trouble_every = 4
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    assert emojitune(*words, "--yes").code == 0
    assert len(lines(folder)) == 20


def test_texts_have_no_samples(
    emojitune: RunCommand, source: RescueSource, folder: Path, tmp_path: Path
) -> None:
    texts = tuple(f"a long reply about subject {number}, in full sentences" for number in range(9))
    data = write(tmp_path / "valid.jsonl", [f"question {number}" for number in range(9)], texts)
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    assert emojitune(*words, "--yes").code == 0
    assert len(source.asked) == 9
    assert all(body["max_tokens"] > MAX_TOKENS for body in source.asked)


def test_azure_calls_a_model_by_its_deployment(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    assert emojitune(*words, "--yes", "--deployment", f"{MODEL}=emoji").code == 0
    assert {body["model"] for body in source.asked} == {"emoji"}
    assert {line["model"] for line in lines(folder)} == {MODEL}
    done = emojitune(*words, "--deployment", "emoji")
    assert (done.code, "MODEL=NAME" in done.err) == (1, True)


def test_a_batch_asks_at_half_the_price(
    emojitune: RunCommand,
    source: RescueSource,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setitem(rescue_replies.__kwdefaults__, "sleep", waits.append)
    data = write(tmp_path / "valid.jsonl", ["first", "forbidden", "third"])
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    done = emojitune(*words, "--yes", "--batch")
    assert done.code == 0, done.err
    assert waits == [replies.POLL_SECONDS] * 2
    assert [len(line["responses"]) for line in lines(folder)] == [2, 2, 2]
    assert lines(folder)[1]["responses"][0]["error"]["message"] == "The response was filtered."
    text = (folder / "replies").glob("*.jsonl").__next__().read_text(encoding="utf-8")
    assert '"logprob": -1E-1' in text, "as it was received"

    # A run that was killed while it waited finds its batch again.
    (folder / "replies").glob("*.jsonl").__next__().unlink()
    source.asked.clear()
    posts = [path for path in source.requests if path == "/batches"]
    assert emojitune(*words, "--yes", "--batch").code == 0
    assert len([path for path in source.requests if path == "/batches"]) == len(posts) + 1
    assert source.asked == []
    assert len(lines(folder)) == 3


def test_a_refused_batch_does_not_show_the_key(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    source.troubles = [Trouble("/files", 403, message=f"{KEY} may not.")]
    words = ("rescue", folder, "--provider", source.url, "--replies", MODEL, "--data", data)
    done = emojitune(*words, "--yes", "--batch")
    assert done.code == 1
    assert "The API refused (403): [key] may not." in done.err
    source.troubles = [Trouble("/batches", 404, message="There are no batches.")]
    done = emojitune(*words, "--yes", "--batch")
    assert done.code == 1
    assert "The batch cannot be read (404): There are no batches." in done.err


def test_options_that_need_another(
    emojitune: RunCommand, source: RescueSource, folder: Path, data: Path
) -> None:
    done = emojitune("rescue", folder, "--provider", source.url, "--replies", MODEL)
    assert (done.code, "--data FILE" in done.err) == (1, True)
    done = emojitune("rescue", folder, "--provider", source.url, "--data", data)
    assert (done.code, "belong to --replies" in done.err) == (1, True)


def test_prices_are_those_of_the_longest_name() -> None:
    assert chat_prices(MODEL) == CHAT_DOLLARS_PER_MILLION["gpt-3.5-turbo"]
    assert chat_prices("ft:gpt-4o-mini-2024-07-18:o::x") == (0.3, 1.2)
    assert chat_prices("ft:gpt-4.1-2025-04-14:o::x") == (3.0, 12.0)
    assert chat_prices("gpt-4o") is None
    assert chat_prices("ft:unknown:o::x") is None
