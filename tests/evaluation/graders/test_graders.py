import json
from typing import Any

import pytest

from emojitune.errors import InvalidRequestError
from emojitune.evaluation.graders.formula import parse_formula
from emojitune.evaluation.graders.graders import (
    MAX_TEXT_LENGTH,
    MAX_TOTAL_LENGTH,
    Multi,
    StringCheck,
    TextSimilarity,
    check_templates,
    grade,
)

ITEM: dict[str, Any] = {"label": "(party)", "tags": [{"n": 7}], "deep": {"x y": None, "é": "ü"}}


@pytest.mark.parametrize(
    ("operation", "text", "reward"),
    [
        ("eq", "(party)", 1),
        ("eq", "(Party)", 0),
        ("ne", "(party)", 0),
        ("ne", "(yawn)", 1),
        ("like", "a (party)!", 1),
        ("like", "a (PARTY)!", 0),
        ("ilike", "a (PARTY)!", 1),
        ("ilike", "part", 0),
    ],
)
def test_string_checks(operation: str, text: str, reward: float) -> None:
    check = StringCheck("c", "{{sample.output_text}}", "{{item.label}}", operation)
    assert grade(check, text, ITEM).reward == reward


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain {text}", "plain {text}"),
        ("{{item.label}}/{{ item.label }}", "(party)/(party)"),
        ("{{item.tags[0].n}} {{item.tags.0.n}}", "7 7"),
        ("{{item.tags}}", '[{"n": 7}]'),
        ("{{item.deep.é}}", "ü"),
        ("{{sample.output_json.a.b}}", "true"),
        ("{{sample.output_json.list[1]}}", "2"),
    ],
)
def test_templates_are_filled_in(template: str, text: str) -> None:
    sample = '{"a": {"b": true}, "list": [1, 2]}'
    assert grade(StringCheck("c", template, text, "eq"), sample, ITEM).reward == 1


def test_a_reply_is_no_template() -> None:
    check = StringCheck("c", "{{sample.output_text}}", "{{item.x}}", "eq")
    item = {"x": "{{item.label}}"}
    assert grade(check, "{{item.label}}", item).reward == 1


@pytest.mark.parametrize("template", ["{{}}", "{{label}}", "{{item}}", "{{items.a}}", "{{ . }}"])
def test_templates_of_nothing_are_refused(template: str) -> None:
    with pytest.raises(InvalidRequestError, match="a template is"):
        check_templates(template, "grader.input")


def test_a_text_that_grows_out_of_bounds_is_cut_and_says_so() -> None:
    check = StringCheck("c", "{{sample.output_text}}" * 1000, "x", "like")
    graded = grade(check, "x" * MAX_TEXT_LENGTH, {})
    assert (graded.reward, graded.errors) == (1, {"truncated_observation_error"})


def test_a_multi_grader_collects_rewards_and_errors() -> None:
    broken = StringCheck("b", "{{item.gone}}", "", "eq")
    alike = TextSimilarity("a", "{{sample.output_text}}", "{{item.label}}", "rouge_1")
    both = Multi("m", {"a": alike, "b": broken}, parse_formula("a - b", {"a", "b"}))
    graded = grade(both, "party", ITEM)
    assert (graded.reward, graded.sub_rewards) == (1, {"a": 1, "b": 0})
    assert graded.errors == {"invalid_variable_error"}


@pytest.mark.parametrize("sample", ["[" * 100_000, "[" * 900 + "]" * 900, "1" * 5000, "NaN"])
def test_a_reply_that_is_not_quite_json_is_an_error_of_the_template(sample: str) -> None:
    check = StringCheck("c", "{{sample.output_json.a}}", "x", "eq")
    assert grade(check, sample, {}).errors <= {"sample_parse_error", "invalid_variable_error"}
    assert grade(check, sample, {}).errors


def test_a_reply_is_parsed_once_however_often_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    sample = '{"a": "", "b": ""}'
    check = StringCheck(
        "c", "{{sample.output_json.a}}{{sample.output_json.b}}" * 1000, "{{item.x}}", "eq"
    )
    assert grade(check, sample, {"x": ""}).reward == 1
    assert parsed == [sample]


def test_texts_that_are_long_only_together_are_refused() -> None:
    text = "x" * MAX_TEXT_LENGTH
    named = {
        name: TextSimilarity(name, "{{item.x}}", "{{sample.output_text}}", metric)
        for name, metric in (("a", "rouge_1"), ("b", "rouge_2"))
    }
    one = Multi(
        "m", {"a": named["a"], "again": named["a"]}, parse_formula("a - again", {"a", "again"})
    )
    assert grade(one, text, {"x": text}).reward == 0
    two = Multi("m", named, parse_formula("a + b", {"a", "b"}))
    with pytest.raises(InvalidRequestError, match=f"{MAX_TOTAL_LENGTH} characters together"):
        grade(two, text, {"x": text})


def test_values_are_written_up_to_where_they_are_cut() -> None:
    pauses = []
    check = StringCheck("c", "{{item.x}}", "[1, 1", "like")
    graded = grade(check, "", {"x": [1] * 1_000_000}, lambda: pauses.append(None))
    assert (graded.reward, graded.errors) == (1, {"truncated_observation_error"})
    assert len(pauses) < MAX_TEXT_LENGTH
