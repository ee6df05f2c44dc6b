import io

import pytest

from emojitune.dataset.upload_check import check_first_line
from emojitune.errors import DatasetError


@pytest.mark.parametrize(
    "content", [b"{}", b'{"a": 1}\nbroken', b"\n\r\n{}\n", b'\xef\xbb\xbf{"a": 1}']
)
def test_json_lines_pass_by_their_first_line(content: bytes) -> None:
    check_first_line(io.BytesIO(content))


@pytest.mark.parametrize("content", [b"", b" \n", b"[]", b"{", b'"a"', b"\xff", b"a,b\n{}"])
def test_a_first_line_that_is_not_a_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(DatasetError, match="where every line is a JSON dictionary"):
        check_first_line(io.BytesIO(content))


def test_only_the_beginning_is_read() -> None:
    file = io.BytesIO(b"{}\n" + b"x" * 2_000_000)
    check_first_line(file)
    assert file.tell() == 1024 * 1024


@pytest.mark.parametrize("start", [b' {"a": "', b"\n"])
def test_the_rest_of_an_endless_line_is_left_to_the_job(start: bytes) -> None:
    check_first_line(io.BytesIO(start + start[-1:] * 2_000_000))


@pytest.mark.parametrize("start", [b"x", b"[1,", b"\n\n,"])
def test_an_endless_line_that_begins_no_object_is_refused(start: bytes) -> None:
    with pytest.raises(DatasetError, match="is not a dictionary"):
        check_first_line(io.BytesIO(start + b"1" * 2_000_000))
