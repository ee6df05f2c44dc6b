"""Message and TrainingExample: values, and their one line of JSON."""

import json

from emojitune.dataset.example import Message, TrainingExample

SYSTEM = Message("system", "Only emojis!")


def test_prompt_reply_and_question() -> None:
    example = TrainingExample(
        (
            SYSTEM,
            Message("user", "hi"),
            Message("assistant", "(wave)", weight=0),
            Message("user", "I passed!"),
            Message("assistant", "(party)"),
        )
    )
    assert example.reply == "(party)"
    assert example.question == "I passed!"
    assert example.prompt == example.messages[:4]
    assert example.trained_replies == ("(party)",)


def test_question_is_empty_without_a_user() -> None:
    assert TrainingExample((SYSTEM, Message("assistant", "(wave)"))).question == ""


def test_to_json_is_one_line_that_keeps_all_text() -> None:
    example = TrainingExample((Message("user", "ça\nva? 🎉"), Message("assistant", "(yes)", 1)))
    line = example.to_json()
    assert "\n" not in line
    assert "🎉" in line
    assert json.loads(line) == {
        "messages": [
            {"role": "user", "content": "ça\nva? 🎉"},
            {"role": "assistant", "content": "(yes)", "weight": 1},
        ]
    }
