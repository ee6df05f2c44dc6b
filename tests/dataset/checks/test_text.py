"""Issues of single examples; `test_broken_files.py` has a file for each code."""

import pytest

from emojitune.dataset.checks.text import check_texts
from emojitune.dataset.example import Message, TrainingExample


@pytest.mark.parametrize(("context_tokens", "codes"), [(None, []), (1000, []), (20, ["too_long"])])
def test_length_is_checked_against_the_context_where_it_is_known(
    context_tokens: int | None, codes: list[str]
) -> None:
    example = TrainingExample((Message("user", "word " * 20), Message("assistant", "(party)")))
    issues = check_texts([example], [1], context_tokens)
    assert [issue.code for issue in issues] == codes
