"""File names for ids and names that are none."""

import pytest

from emojitune.workflow.rescue.names import MAX_LENGTH, Names, safe_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("emoji_ft_train.jsonl", "emoji_ft_train.jsonl"),
        ("ft:gpt-4o:org::9uJPbR69", "ft_gpt-4o_org_9uJPbR69"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\train.jsonl", "C_train.jsonl"),
        ("con", "_con"),
        ("AUX.jsonl", "_AUX.jsonl"),
        ("com7.txt", "_com7.txt"),
        ("console.txt", "console.txt"),
        (".hidden", "hidden"),
        ("ends with dots...", "ends_with_dots"),
        ("🎉", "unnamed"),
        ("", "unnamed"),
        ("tab\tand\x00null", "tab_and_null"),
        ("\ud83c", "unnamed"),
    ],
)
def test_a_name_is_safe_on_every_file_system(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_extension_and_differs_from_another_one() -> None:
    one, other = (safe_name("a" * 300 + end + ".jsonl") for end in "bc")
    assert one != other
    assert len(one) == len(other) == MAX_LENGTH
    assert one.endswith(".jsonl")
    assert len(safe_name("a." * 300)) <= MAX_LENGTH


def test_names_do_not_differ_by_case_alone() -> None:
    names = Names()
    ids = ["file-Ab", "file-aB", "file-ab", "ft:a", "ft;a"]
    given = [names.name(one) for one in ids]
    assert given[0] == "file-Ab"
    assert len({name.lower() for name in given}) == len(ids)
    assert [names.name(one) for one in ids] == given
    resumed = Names()
    for name, one in zip(given, ids, strict=True):
        resumed.add(name, one)
    assert [resumed.name(one) for one in reversed(ids)] == given[::-1]
