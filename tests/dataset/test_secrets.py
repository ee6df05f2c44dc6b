"""Secrets are recognized by their form; text that only resembles them is left alone."""

import pytest

from emojitune.dataset.secrets import find_secrets, has_email_address, redact


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("key sk-abcdefghij0123456789 here", "an API key"),
        ("github_pat_abcdefghijklmnopqrstuv", "a GitHub token"),
        ("AKIAABCDEFGHIJKLMNOP", "an AWS access key"),
        ("AIza" + "a" * 35, "a Google API key"),
        ("hf_" + "a" * 34, "a Hugging Face token"),
        ("xoxb-0123456789-abc", "a Slack token"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl".replace(".", "AAAA.", 2) + "AAAA",
         "a JSON web token"),
        ("-----BEGIN PRIVATE KEY-----", "a private key"),
    ],
)  # fmt: skip
def test_each_kind_is_recognized_and_redacted(text: str, kind: str) -> None:
    assert find_secrets(text) == (kind,)
    assert find_secrets(redact(text)) == ()
    assert "[secret]" in redact(text)


@pytest.mark.parametrize(
    "text",
    ["a risk-averse-and-cautious-investor-2024", "sk-short1", "task-force-of-twenty-people-1",
     "AKIA is a name", "sk-learn-is-a-library-for-python"],
)  # fmt: skip
def test_words_are_not_secrets(text: str) -> None:
    assert find_secrets(text) == ()
    assert redact(text) == text


def test_an_entire_private_key_is_redacted() -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\nbm8gcmVhbA==\n-----END EC PRIVATE KEY-----"
    assert redact(f"a {key} b") == "a [secret] b"


@pytest.mark.parametrize(
    ("text", "is_personal"),
    [
        ("write to a.b+c@mail.nowhere.net!", True),
        ("ann@example.com, bob@sub.example.org, x@host.test", False),
        ("git clone git@host.nowhere.net:a/b", False),
        ("meet @ noon, a@b", False),
    ],
)
def test_email_addresses(text: str, is_personal: bool) -> None:
    assert has_email_address(text) is is_personal
    assert (redact(text) != text) is is_personal


def test_a_long_text_without_spaces_takes_no_time() -> None:
    assert not has_email_address("a" * 200_000 + "@")
