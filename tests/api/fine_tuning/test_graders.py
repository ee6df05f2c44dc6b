"""Graders through the official client: validate and run."""

from typing import Any

import httpx2
import pytest
from openai import BadRequestError, OpenAI

CHECK: dict[str, Any] = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{ item.label }}",
    "operation": "eq",
}
ALIKE: dict[str, Any] = {
    "type": "text_similarity",
    "name": "alike",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "evaluation_metric": "fuzzy_match",
}


def multi(graders: Any, formula: str) -> dict[str, Any]:
    return {"type": "multi", "name": "both", "graders": graders, "calculate_output": formula}


def run(client: OpenAI, grader: Any, sample: str, item: Any = None):
    return client.fine_tuning.alpha.graders.run(
        grader=grader, model_sample=sample, item={"label": "(party)"} if item is None else item
    )


@pytest.mark.parametrize("grader", [CHECK, ALIKE, multi(CHECK, "same")])
def test_validate_returns_the_grader(client: OpenAI, grader: dict[str, Any]) -> None:
    answer = client.fine_tuning.alpha.graders.validate(grader=grader)  # type: ignore[arg-type]
    assert answer.to_dict() == {"grader": grader}


def test_the_response_has_all_keys(http: httpx2.Client) -> None:
    body = {"grader": CHECK, "model_sample": "(party)", "item": {"label": "(party)"}}
    answer = http.post("/fine_tuning/alpha/graders/run", json=body).json()
    assert answer["metadata"].pop("execution_time") >= 0
    assert answer == {
        "reward": 1.0,
        "metadata": {
            "name": "same",
            "type": "string_check",
            "errors": {
                "formula_parse_error": False,
                "sample_parse_error": False,
                "truncated_observation_error": False,
                "unresponsive_reward_error": False,
                "invalid_variable_error": False,
                "other_error": False,
                "python_grader_server_error": False,
                "python_grader_server_error_type": None,
                "python_grader_runtime_error": False,
                "python_grader_runtime_error_details": None,
                "model_grader_server_error": False,
                "model_grader_refusal_error": False,
                "model_grader_parse_error": False,
                "model_grader_server_error_details": None,
            },
            "scores": {},
            "token_usage": None,
            "sampled_model_name": None,
        },
        "sub_rewards": {},
        "model_grader_token_usage_per_model": {},
    }


def test_an_item_may_be_left_out(client: OpenAI) -> None:
    grader = {**CHECK, "reference": "(party)"}
    answer = client.fine_tuning.alpha.graders.run(
        grader=grader,  # type: ignore[arg-type]
        model_sample="(party)",
    )
    assert answer.reward == 1


@pytest.mark.parametrize(
    ("graders", "formula"),
    [
        ({"a": CHECK, "b": ALIKE}, "0.5 * a + 0.5 * b"),
        ([CHECK, ALIKE], "(same + alike) / 2"),
        ([{**CHECK, "name": "two words"}, ALIKE],
         "0.5 * string_check_score + 0.5 * text_similarity_score"),
    ],
)  # fmt: skip
def test_a_multi_grader_combines_others(http: httpx2.Client, graders: Any, formula: str) -> None:
    body = {
        "grader": multi(graders, formula),
        "model_sample": "(part)",
        "item": {"label": "(party)"},
    }
    answer = http.post("/fine_tuning/alpha/graders/run", json=body).json()
    assert answer["reward"] == pytest.approx(0.5 * 12 / 13)
    assert sorted(answer["sub_rewards"].values()) == pytest.approx([0, 12 / 13])
    assert answer["metadata"]["scores"] == answer["sub_rewards"]
    assert answer["metadata"]["type"] == "multi"
    checked = http.post("/fine_tuning/alpha/graders/validate", json={"grader": body["grader"]})
    assert checked.json() == {"grader": body["grader"]}


@pytest.mark.parametrize(
    ("change", "sample", "error"),
    [
        ({"reference": "{{item.nothing}}"}, "x", "invalid_variable_error"),
        ({"reference": "{{item.label.deeper}}"}, "x", "invalid_variable_error"),
        ({"input": "{{sample.output_json.a}}"}, "no json", "sample_parse_error"),
        ({"input": "{{sample.output_json.a}}"}, '{"b": 1}', "invalid_variable_error"),
        ({"input": "{{sample.output_audio}}"}, "x", "invalid_variable_error"),
    ],
)
def test_errors_of_a_run_are_in_its_response(
    client: OpenAI, change: dict[str, str], sample: str, error: str
) -> None:
    answer = run(client, {**CHECK, **change}, sample)
    flags = answer.metadata.errors.to_dict()
    assert answer.reward == 0
    assert [name for name, flag in flags.items() if flag is True] == [error]


def test_a_formula_without_a_value_has_reward_zero(client: OpenAI) -> None:
    answer = run(client, multi(CHECK, "1 / same"), "(yawn)")
    assert (answer.reward, answer.metadata.errors.other_error) == (0, True)


@pytest.mark.parametrize(
    ("grader", "param", "code", "words"),
    [
        ({"type": "python", "name": "p", "source": "def grade(a, b): return 1"},
         "grader.type", "unsupported_value", "runs a program"),
        ({"type": "score_model", "name": "s", "model": "gpt-4o",
          "input": [{"role": "user", "content": "x"}]},
         "grader.type", "unsupported_value", "a score"),
        ({"type": "label_model", "name": "l", "model": "gpt-4o", "labels": ["a"],
          "passing_labels": ["a"], "input": [{"role": "user", "content": "x"}]},
         "grader.type", "unsupported_value", "a label"),
        ({**ALIKE, "evaluation_metric": "cosine"},
         "grader.evaluation_metric", "unsupported_value", "embeddings"),
        ({**ALIKE, "evaluation_metric": "rouge_6"},
         "grader.evaluation_metric", "invalid_value", "'rouge_5'"),
        ({**CHECK, "operation": "gt"}, "grader.operation", "invalid_value", "'ilike'"),
        ({**CHECK, "pass_threshold": 1}, "grader.pass_threshold", "unknown_parameter", "Unknown"),
        ({**CHECK, "reference": "{{label}}"}, "grader.reference", "invalid_value", "item.KEY"),
        ({"type": "string_check"}, "grader.name", "missing_required_parameter", "grader.name"),
        ({"name": "x"}, "grader.type", "missing_required_parameter", "grader.type"),
        ({"type": "vibes"}, "grader.type", "invalid_value", "'string_check'"),
        ("same", "grader", "invalid_type", "an object"),
        (None, "grader", "missing_required_parameter", "grader"),
        (multi(CHECK, "same +"), "grader.calculate_output", "invalid_value", "invalid syntax"),
        (multi(CHECK, "other"), "grader.calculate_output", "invalid_value", "no grader is called"),
        (multi(CHECK, "same.__class__"), "grader.calculate_output", "invalid_value", "only"),
        (multi([CHECK, CHECK], "same"), "grader.graders", "invalid_value", "one name"),
        (multi({}, "1"), "grader.graders", "empty_object", "empty"),
        (multi([], "1"), "grader.graders", "empty_array", "empty"),
        (multi({"a": {"type": "python", "name": "p", "source": ""}}, "a"),
         "grader.graders.a.type", "unsupported_value", "runs a program"),
        (multi({"a": multi(CHECK, "same")}, "a"),
         "grader.graders.a.type", "invalid_value", "'text_similarity'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", ["validate", "run"])
def test_unsupported_graders_are_refused_with_the_reason(
    http: httpx2.Client, endpoint: str, grader: Any, param: str, code: str, words: str
) -> None:
    body = {"grader": grader, **({"model_sample": "x"} if endpoint == "run" else {})}
    response = http.post(f"/fine_tuning/alpha/graders/{endpoint}", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]
    assert "[tag]" not in response.text


def test_a_run_needs_a_text_sample(client: OpenAI, http: httpx2.Client) -> None:
    response = http.post("/fine_tuning/alpha/graders/run", json={"grader": CHECK})
    assert response.json()["error"]["code"] == "missing_required_parameter"
    with pytest.raises(BadRequestError) as caught:
        client.fine_tuning.alpha.graders.run(grader=CHECK, model_sample=5)  # type: ignore[arg-type]
    assert (caught.value.param, caught.value.code) == ("model_sample", "invalid_type")


@pytest.mark.parametrize("endpoint", ["validate", "run"])
def test_too_many_templates_are_refused_in_words(client: OpenAI, endpoint: str) -> None:
    grader = {**CHECK, "input": "{{sample.output_json.a}}" * 50_000}
    body = {"grader": grader, **({"model_sample": '{"a": ""}'} if endpoint == "run" else {})}
    with pytest.raises(BadRequestError) as caught:
        client.post(f"/fine_tuning/alpha/graders/{endpoint}", body=body, cast_to=object)
    assert caught.value.code == "string_above_max_length"
    assert caught.value.param == "grader"
    assert "may have 200000 characters together" in caught.value.message
