"""The reference is generated from request models and routes; the committed one is current."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from fastapi import APIRouter, Depends, FastAPI, Query
from pydantic import Field, InstanceOf
from starlette.datastructures import UploadFile

from emojitune.server.app import create_app
from emojitune.server.docs.markdown import markdown
from emojitune.server.docs.openapi import openapi_document
from emojitune.server.docs.page import page
from emojitune.server.docs.reference import Parameter, endpoints
from emojitune.server.http.json_bodies import StrictModel, json_body
from emojitune.server.http.unsupported import Ignored, Refused
from emojitune.server.write_reference import reference
from emojitune.settings import Settings

COMMITTED = Path(__file__).parents[3] / "docs" / "api.md"
APP = create_app(Settings(api_key="none"))


class Text(StrictModel):
    type: Literal["text"]
    text: str = Field(description="What is said.")


class Tool(StrictModel):
    type: Literal["tool"]
    tool_id: str = Field(description="Whose result it is.")
    inner: "list[Tool] | None" = Field(None, description="More of them.")


class Order(StrictModel):
    parts: list[Text | Tool] = Field(min_length=1, description="The parts.")
    size: int = Field(3, ge=1, le=9, description="How big | how small.")
    colour: Annotated[Any, Refused("all is grey", ["grey", 0])] = None
    user: Annotated[str | None, Ignored("nobody looks")] = None


def make_app(model: type[StrictModel], description: str = "Which page.") -> FastAPI:
    """An application with one endpoint that takes a `model`."""
    router = APIRouter(prefix="/v1/orders")

    @router.post("/{order_id}")
    def create(
        order_id: str,
        body: Annotated[model, Depends(json_body(model))],  # type: ignore[valid-type]
        after: Annotated[str | None, Query(description=description)] = None,
    ) -> None:
        """Order something."""

    app = FastAPI(openapi_url=None)
    app.include_router(router)
    return app


def rows(app: FastAPI) -> dict[str, Parameter]:
    (endpoint,) = endpoints(openapi_document(app))
    assert (endpoint.title, endpoint.description) == (
        "POST /v1/orders/{order_id}",
        "Order something.",
    )
    return {row.name: row for row in endpoint.parameters}


def test_every_parameter_has_a_row_however_deep() -> None:
    table = rows(make_app(Order))
    assert list(table) == [
        "order_id",
        "after",
        "parts",
        "parts[].type",
        "parts[].text",
        "parts[].tool_id",
        "parts[].inner",
        "size",
        "colour",
        "user",
    ]
    assert table["after"] == Parameter("after", "query", "string", "", "supported", "Which page.")
    assert table["order_id"].location == "path"
    assert table["parts"].default == "required"
    assert table["parts[].tool_id"].description == "With type tool: Whose result it is."
    assert (table["size"].type, table["size"].default) == ("integer (at least 1, at most 9)", "3")


def test_the_file_of_a_form_is_described_as_a_file() -> None:
    class Form(StrictModel):
        file: InstanceOf[UploadFile] = Field(description="The bytes.")

    async def parse() -> None: ...

    parse.body_model, parse.media_type = Form, "multipart/form-data"  # type: ignore[attr-defined]
    app = FastAPI(openapi_url=None)

    @app.post("/v1/forms")
    def create(form: Annotated[None, Depends(parse)]) -> None:
        """Send a form."""

    (endpoint,) = endpoints(openapi_document(app))
    assert endpoint.parameters == (
        Parameter("file", "form", "file", "required", "supported", "The bytes."),
    )


def test_refused_and_ignored_parameters_are_described() -> None:
    table = rows(make_app(Order))
    assert table["colour"].status == "refused"
    assert table["colour"].description == (
        "400 unsupported_parameter. All is grey. "
        "Only grey or 0 is accepted, which requests nothing."
    )
    assert (table["user"].status, table["user"].description) == ("ignored", "Nobody looks.")


def test_the_committed_reference_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == reference(), "run: make docs"


@pytest.mark.parametrize(
    "changed",
    [
        {"size": (int, Field(3, ge=1, le=8, description="How big | how small."))},
        {"size": (int, Field(4, ge=1, le=9, description="How big | how small."))},
        {"size": (int, Field(3, ge=1, le=9, description="How big."))},
        {"more": (int, Field(3, description="One more."))},
        {"user": (Annotated[str | None, Ignored("nobody cares")], None)},
        {"user": (Annotated[str | None, Refused("nobody cares")], None)},
    ],
)
def test_a_changed_field_changes_the_reference(changed: dict[str, Any]) -> None:
    other = type(
        "Other",
        (Order,),
        {
            "__module__": __name__,
            "__annotations__": {name: kind for name, (kind, _) in changed.items()},
            **{name: default for name, (_, default) in changed.items()},
        },
    )
    before = markdown(endpoints(openapi_document(make_app(Order))))
    assert markdown(endpoints(openapi_document(make_app(other)))) != before
    assert markdown(endpoints(openapi_document(make_app(Order)))) == before


def test_markdown_and_html_are_escaped() -> None:
    listed = endpoints(openapi_document(make_app(Order, "<b> | &")))
    assert "| How big \\| how small. |" in markdown(listed)
    assert "<td>&lt;b&gt; | &amp;</td>" in page(listed)


def test_the_page_loads_nothing_from_other_hosts() -> None:
    text = page(endpoints(openapi_document(APP)))
    assert not re.search(r"<script|<link|<img|src=|@import|url\(|https?:", text)
    assert "prefers-color-scheme" in text
    assert "POST /v1/chat/completions" in text


def test_the_openapi_document_is_valid() -> None:
    document = openapi_document(APP)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    referred = set(re.findall(r"'\$ref': '([^']*)'", repr(document)))
    assert referred == {f"#/components/schemas/{name}" for name in schemas}
