"""Multipart forms, most of them broken: in a header, a boundary, a length, a byte."""

from api_requests import ApiRequest, mutated_bytes
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

_PATHS = ("/v1/files", "/v1/uploads/@upload/parts")
_NAMES = (b"file", b"data", b"purpose", b"expires_after[anchor]", b"expires_after[seconds]")
_ODD_NAMES = (b"", b"file[", b"file[]", b"[file]", b"\xff", b"a]b[c]", b"purpose", b"expires_after")
_FILENAMES = (
    b'; filename="a.jsonl"',
    b'; filename=""',
    b"; filename=a b",
    b'; filename="' + b"x" * 3000 + b'"',
    b'; filename="\xff\xfe\x00"',
    b'; filename="..\\..\\a"; filename="b"',
    b"; filename*=utf-8''%C3%A4.jsonl",
    b"; filename*=utf-8''%ff%00%0d%0a%22",
    b"; filename*=punycode'x'\xff",
    b"; filename*0=a; filename*1=b",
    b'; filename="a\\"b\\',
)
_CONTENTS = (
    b"",
    b'{"messages": []}\n',
    b"user_data",
    b"fine-tune",
    b"batch",
    b"created_at",
    b"3600",
    b"9" * 5000,
    b"\xff\xfe\0",
    b"\r\n--",
    b"x" * 70_000,
)
_CHARSETS = (
    b"utf-8",
    b"utf-7",
    b"utf-16",
    b"punycode",
    b"idna",
    b"hex",
    b"rot13",
    b"undefined",
    b"unicode_escape",
    b"\xff",
    b"x" * 1000,
)
_MORE_HEADERS = (
    b"Content-Type: application/json",
    b"Content-Type: multipart/mixed; boundary=x",
    b"Content-Transfer-Encoding: base64",
    b"Content-Length: 5",
    b"X: " + b"y" * 20_000,
    b": no name",
    b"no colon",
    b"\xff: \xff",
)


@st.composite
def cases(draw: DrawFn) -> ApiRequest:
    """A request with a form for one of the endpoints that accept forms."""
    boundary = draw(st.sampled_from([b"limit", b"limit", b"limit", b"", b"--", b"x" * 300, b"a b"]))
    valid = draw(st.integers(0, 4)) == 0
    parts = _VALID_PARTS if valid else draw(st.lists(_parts(), max_size=4))
    content = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    content += b"--" + boundary + draw(st.sampled_from([b"--\r\n", b"--", b"\r\n", b""]))
    if draw(st.booleans()):
        content = draw(mutated_bytes(content))
    content_type = b"multipart/form-data; boundary=" + boundary
    if draw(st.integers(0, 3)) == 0:
        content_type += b"; charset=" + draw(st.sampled_from(_CHARSETS))
    if draw(st.integers(0, 9)) == 0:
        content_type = draw(
            st.sampled_from(
                [b"multipart/form-data", b"multipart/form-data; boundary", content_type]
            )
        )
    path = draw(st.sampled_from(_PATHS))
    chunk_size = draw(st.sampled_from([1, 7, 2**20])) if len(content) < 2000 else 2**16
    return ApiRequest(
        "POST",
        path,
        headers=(("content-type", content_type),),
        content=content,
        chunk_size=chunk_size,
    )


_VALID_PARTS = [
    b'Content-Disposition: form-data; name="purpose"\r\n\r\nuser_data',
    b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\ntext',
]


@st.composite
def _parts(draw: DrawFn) -> bytes:
    name = draw(st.one_of(st.sampled_from(_NAMES), st.sampled_from(_ODD_NAMES)))
    lines = [b'Content-Disposition: form-data; name="' + name + b'"']
    if name in (b"file", b"data") or draw(st.booleans()):
        lines[0] += draw(st.sampled_from(_FILENAMES))
    if draw(st.integers(0, 2)) == 0:
        lines.append(draw(st.sampled_from(_MORE_HEADERS)))
    if draw(st.integers(0, 9)) == 0:
        lines = draw(st.lists(st.sampled_from(_MORE_HEADERS), max_size=2))
    return b"\r\n".join(lines) + b"\r\n\r\n" + draw(st.sampled_from(_CONTENTS))
