"""The meanings of labels become examples where the emoji vocabulary has all labels of a file."""

from emojitune.dataset.augmentation import meaning_examples
from emojitune.dataset.example import Message, TrainingExample
from emojitune.labels import label_meanings


def example(reply: str, question: str = "hm", system: str | None = None) -> TrainingExample:
    first = () if system is None else (Message("system", system),)
    return TrainingExample((*first, Message("user", question), Message("assistant", reply)))


def test_each_label_has_two_more_examples_with_the_usual_system_prompt() -> None:
    examples = [
        example("(yawn)", system="Emoji only."),
        example("(party)", system="Emoji only."),
        example("(party)", "again", system="Other."),
    ]
    augmented = meaning_examples(examples)
    assert [one.reply for one in augmented] == ["(party)", "(party)", "(yawn)", "(yawn)"]
    assert all(one.messages[0] == Message("system", "Emoji only.") for one in augmented)
    label = label_meanings()["(yawn)"]
    assert [one.question for one in augmented[2:]] == [label.meaning, label.keywords]


def test_a_file_without_a_system_prompt_gets_none() -> None:
    augmented, _ = meaning_examples([example("(yawn)")])
    assert [message.role for message in augmented.messages] == ["user", "assistant"]


def test_a_file_with_one_label_of_its_own_has_no_more_examples() -> None:
    assert meaning_examples([example("(party)"), example("(yawn)"), example("(ourlogo)")]) == ()


def test_prose_has_no_more_examples() -> None:
    replies = [f"A sentence of its own, number {n}." for n in range(9)]
    assert meaning_examples([example(reply) for reply in replies]) == ()
