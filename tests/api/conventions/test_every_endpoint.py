"""Conventions of all endpoints, which are taken from the application's routes.

A new endpoint is covered as soon as it exists: each method of each path is sent unusual ids,
queries, headers and bodies, and must respond in OpenAI's shape, never with a 5xx.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from openai import OpenAI
from response_checks import assert_standard_headers, error_of

from emojitune.server.app import create_app
from emojitune.server.docs.openapi import api_routes, body_model_of, openapi_document
from emojitune.server.docs.reference import UNSUPPORTED_PATHS
from emojitune.settings import Settings

APP = create_app(Settings(api_key="none"))
DOCUMENT = openapi_document(APP)
ROUTES = [
    pytest.param(method, path, route, id=f"{method} {path}")
    for method, path, route in api_routes(APP)
]
LISTS = [
    param
    for param in ROUTES
    if {"limit", "after"} <= {field.alias for field in param.values[2].dependant.query_params}
]
READERS = [param for param in ROUTES if body_model_of(param.values[2])]
JSON_READERS = [
    param for param in READERS if body_model_of(param.values[2])[1] == "application/json"
]  # fmt: skip

IDS = [
    "x",
    "a" * 5000,
    "%00",
    "%FF%FE",
    "%F0%9F%98%88",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    "%0d%0aX-Evil:%201",
    "'%22;--",
    "ft:a:b:c:d",
    "no%2Fone%2Fhas%2Fthis",
    "%ED%A0%80",  # a lone surrogate, which UTF-8 does not have
]
BODIES = [
    b"",
    b" ",
    b"{",
    b"{}",
    b"{} {}",
    b"null",
    b"true",
    b"1",
    b"[]",
    b'"text"',
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"a=1&b=2",
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b'{"a": -Infinity}',
    b'{"a": 1e999}',
    b'{"a": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"a": 1, "a": 2}',
    b'{"model": 1, "model": "\\u0000"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"seed": ' + b"9" * 10_000 + b"}",
    b'{"' + b"a" * 100_000 + b'": 1}',
]
VALUES: list[Any] = [True, "", "\0", "😈" * 3000, -1, 10**30, 1e308, [], [[]], [None], {"": {}}, {}]


def address(path: str, value: str = "x") -> str:
    """The URL path, below /v1, of a route with `value` for its ids."""
    steps = path.removeprefix("/v1").split("/")
    return "/".join(value if step.startswith("{") else step for step in steps)


def assert_answered(response: httpx2.Response) -> None:
    """Assert that a response is not a 5xx, with all headers, and an error in OpenAI's shape."""
    assert response.status_code < 500, f"{response.request.url}: {response.text[:300]}"
    assert_standard_headers(response)
    if response.status_code >= 400 and response.request.method != "HEAD":
        error = error_of(response)
        assert error["message"]
        assert error["type"] == "invalid_request_error"


@pytest.fixture(scope="module", autouse=True)
def _objects_to_list(client: OpenAI) -> None:
    for number in range(3):
        file = client.files.create(file=b"{}\n", purpose="fine-tune")
        client.fine_tuning.jobs.create(
            model="gpt-3.5-turbo", training_file=file.id, metadata={"number": str(number)}
        )


@pytest.mark.parametrize(("method", "path", "route"), ROUTES)
def test_without_the_key_it_is_a_401(server, method: str, path: str, route: APIRoute) -> None:
    response = httpx2.request(method, server.url + address(path))
    assert response.status_code == 401
    error_of(response)


@pytest.mark.parametrize(("method", "path", "route"), ROUTES)
def test_unusual_ids_are_not_found(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    if "{" not in path:
        return
    for value in IDS:
        response = http.request(method, address(path, value))
        assert_answered(response)
        assert response.status_code >= 400, f"{value}: {response.text[:300]}"


@pytest.mark.parametrize("path", sorted({path for _, path, _ in api_routes(APP)}))
def test_another_method_is_a_405_that_lists_the_allowed_ones(
    http: httpx2.Client, path: str
) -> None:
    # `/responses/compact` may also be read as `/responses/{response_id}`.
    here = {
        method
        for method, other, route in api_routes(APP)
        if other == path or route.path_regex.fullmatch(path)
    }
    for method in {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "BREW"} - here:
        response = http.request(method, address(path))
        assert_answered(response)
        assert response.status_code == 405, method
        allowed = set(response.headers["allow"].split(", "))
        assert here <= allowed
        assert method not in allowed
        if method != "HEAD":
            hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
            assert error_of(response)["message"] == (
                f"Not allowed to {method} on /v1{address(path)}. {hint}"
            )


@pytest.mark.parametrize(("method", "path", "route"), ROUTES)
def test_a_trailing_slash_is_a_404(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    response = http.request(method, address(path) + "/", follow_redirects=False)
    assert_answered(response)
    assert response.status_code in (404, 405)


@pytest.mark.parametrize(("method", "path", "route"), LISTS)
@pytest.mark.parametrize("limit", ["0", "-1", "10001", "1" + "0" * 30, "many", "1.5", "", "true"])
def test_a_limit_out_of_its_range_is_a_400(
    http: httpx2.Client, method: str, path: str, route: APIRoute, limit: str
) -> None:
    response = http.request(method, address(path), params={"limit": limit})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == "limit"
    code = {"0": "integer_below_min_value", "-1": "integer_below_min_value"}.get(limit)
    code = code or {"10001": "integer_above_max_value"}.get(limit)
    assert code is None or error["code"] == code
    if code is not None:
        # For files the hosted service has a wording of its own.
        words = "must be between 1 and 10000" if path == "/v1/files" else f"but got {limit} instead"
        assert words in error["message"]


@pytest.mark.parametrize(("method", "path", "route"), LISTS)
@pytest.mark.parametrize("after", ["nothing", "", "\0", "😈", "x" * 5000])
def test_an_unknown_cursor_is_never_the_first_page(
    http: httpx2.Client, method: str, path: str, route: APIRoute, after: str
) -> None:
    response = http.request(method, address(path), params={"after": after})
    assert_answered(response)
    assert response.status_code == 404 or response.json()["data"] == []


@pytest.mark.parametrize(("method", "path", "route"), LISTS)
@pytest.mark.parametrize("order", [None, "asc", "desc"])
def test_pages_contain_each_object_once_and_end(
    http: httpx2.Client, method: str, path: str, route: APIRoute, order: str | None
) -> None:
    if "{" in path or method != "GET":
        return
    query = {"order": order} if order else {}
    expected = [item["id"] for item in http.get(address(path), params=query).json()["data"]]
    met: list[str] = []
    for _ in range(len(expected) + 1):
        cursor = {"after": met[-1]} if met else {}
        page = http.get(address(path), params={**query, "limit": "1", **cursor}).json()
        met += [item["id"] for item in page["data"]]
        assert page["has_more"] == (len(met) < len(expected))
        if not page["has_more"]:
            break
    assert met == expected


@pytest.mark.parametrize(("method", "path", "route"), ROUTES)
def test_an_unknown_query_parameter_is_ignored(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    plain = http.request(method, address(path))
    more = http.request(method, address(path), params={"api-version": "1", "[": "%", "\0": "ÿ"})
    assert_answered(more)
    assert more.status_code == plain.status_code


@pytest.mark.parametrize(("method", "path", "route"), ROUTES)
def test_unusual_bodies_are_refused_without_a_server_error(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    headers = {"content-type": "application/json"}
    for body in BODIES:
        response = http.request(method, address(path), content=body, headers=headers)
        assert_answered(response)
        if body_model_of(route):
            assert response.status_code == 400, f"{body[:40]!r}: {response.text[:300]}"


@pytest.mark.parametrize(("method", "path", "route"), JSON_READERS)
def test_a_body_that_is_not_json_is_reported(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    for body in (b"", b"{", b'{"a": NaN}', b"[" * 100_000, b'{"a": "\\ud800"}'):
        error = error_of(http.request(method, address(path), content=body))
        assert error["message"].startswith("We could not parse the JSON body of your request")
        assert (error["param"], error["code"]) == (None, None)
    for body, found in ((b"[]", "an array"), (b'"x"', "a string"), (b"1", "an integer")):
        error = error_of(http.request(method, address(path), content=body))
        assert error["code"] == "invalid_type"
        assert f"expected an object, but got {found}" in error["message"]


@pytest.mark.parametrize(("method", "path", "route"), JSON_READERS)
def test_another_content_type_is_refused_and_a_missing_one_is_json(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    for kind in (
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "é",
        ";",
    ):
        headers = [(b"content-type", kind.encode())]
        response = http.request(method, address(path), content=b"{}", headers=headers)
        assert_answered(response)
        assert response.status_code == 400
        if "/" in kind:
            assert error_of(response)["code"] == "unsupported_content_type"
    # The last one is curl's default, in OpenAI's examples too.
    for kind in (
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "",
        "application/x-www-form-urlencoded",
    ):
        headers = [(b"content-type", kind.encode())] if kind else []
        response = http.request(method, address(path), content=b"{}", headers=headers)
        assert error_of(response)["code"] != "unsupported_content_type"


@pytest.mark.parametrize(("method", "path", "route"), JSON_READERS)
def test_unusual_values_of_every_parameter_are_no_server_error(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    for body in _bodies(body_model_of(route)[0].__name__):
        content = json.dumps(body)
        assert_answered(http.request(method, address(path), content=content))


@pytest.mark.parametrize(("method", "path", "route"), JSON_READERS)
def test_an_unknown_parameter_is_named(
    http: httpx2.Client, method: str, path: str, route: APIRoute
) -> None:
    body = {**_example({"$ref": f"/{body_model_of(route)[0].__name__}"}), "colour": "red"}
    error = error_of(http.request(method, address(path), json=body))
    if error["code"] == "unknown_parameter":  # otherwise the object of the path is not found first
        assert error["message"] == "Unrecognized request argument supplied: colour"
    else:
        assert "{" in path


def test_a_body_that_is_too_large_is_a_413(http: httpx2.Client) -> None:
    paths = [path for method, path, route in api_routes(APP) if body_model_of(route)]
    for path in dict.fromkeys(paths):
        response = http.post(address(path), content=b" " * (17 * 1024 * 1024))
        assert response.status_code in (400, 413)
        error_of(response)


@pytest.mark.parametrize(
    "path", [path.replace("*", "x") for paths, _ in UNSUPPORTED_PATHS for path in paths.split(", ")]
)
def test_unsupported_paths_are_a_404(http: httpx2.Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        response = http.request(method, path.removeprefix("/v1"))
        assert response.status_code == 404
        assert error_of(response)["message"] == f"Invalid URL ({method} {path})"


@pytest.mark.parametrize("path", ["/v1", "/", "/v2/models", "/v1//models", "/%FF", "/v1/%00"])
def test_unknown_paths_have_openais_error(server, http: httpx2.Client, path: str) -> None:
    response = http.get(server.url.removesuffix("/v1") + path)
    assert response.status_code == 404
    assert error_of(response)["message"].startswith("Invalid URL (GET /")


def test_percent_encoded_paths_are_equivalent(http: httpx2.Client) -> None:
    assert http.get("/%6dodels").json() == http.get("/models").json()


@pytest.mark.parametrize("value", [b"bearer sk-test-key", b"BEARER  sk-test-key"])
def test_the_authorization_scheme_is_case_insensitive(server, value: bytes) -> None:
    headers = [(b"authorization", value)]
    assert httpx2.get(server.url + "/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "value", [b"", b"Bearer", b"Bearer sk-test-ke", b"Bearer sk-test-key x", b"Basic c2s6",
              b"Token sk-test-key", b"sk-test-key", b"Bearer \xff\xfe", b"Bearer " + b"a" * 10_000]
)  # fmt: skip
def test_other_authorization_headers_are_a_401(server, value: bytes) -> None:
    response = httpx2.get(server.url + "/models", headers=[(b"authorization", value)])
    assert response.status_code == 401
    assert "sk-test-ke" not in error_of(response)["message"]


def _bodies(name: str) -> Iterator[dict[str, Any]]:
    """For each parameter at any depth, a body that is valid except for its unusual value."""
    schema = {"$ref": f"/{name}"}
    for place in _places(schema, ()):
        for value in VALUES:
            yield _placed(_example(schema), place, value)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _resolved(next(kind for kind in schema[key] if kind.get("type") != "null"))
    return schema


def _places(
    schema: dict[str, Any], place: tuple[str | int, ...]
) -> Iterator[tuple[str | int, ...]]:
    if len(place) > 5:
        return
    schema = _resolved(schema)
    if schema.get("type") == "array":
        yield from _places(schema.get("items", {}), (*place, 0))
    for name, field in schema.get("properties", {}).items():
        yield (*place, name)
        yield from _places(field, (*place, name))


def _example(schema: dict[str, Any]) -> Any:
    """A valid, or nearly valid, value of a schema."""
    schema = _resolved(schema)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            # A message's role decides whether it needs content, which a schema does not express.
            needed = [*schema.get("required", []), *({"content"} & {*properties})]
            return {name: _example(properties[name]) for name in needed}
        case "array":
            return [_example(schema.get("items", {}))] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return False
    return "gpt-3.5-turbo"


def _placed(container: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """`container` with `value` at `place`; missing containers on the path are created."""
    if not place:
        return value
    first, rest = place[0], place[1:]
    if isinstance(first, int):
        inner = container[0] if isinstance(container, list) and container else {}
        return [_placed(inner, rest, value)]
    known = container if isinstance(container, dict) else {}
    return {**known, first: _placed(known.get(first), rest, value)}
