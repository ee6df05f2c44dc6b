"""`/docs` and `/openapi.json`: the API's description, for people and for programs.

The page has no scripts and loads nothing from other hosts, so that it works offline.
Both are made once: they need no key, and take a fifth of a second.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from threading import Lock

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response

from emojitune.server.docs.openapi import openapi_document
from emojitune.server.docs.reference import UNSUPPORTED_PATHS, Endpoint, Parameter, endpoints
from emojitune.server.http.json_responses import encode_json

router = APIRouter()

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c33; --dim: #888; }
@media (prefers-color-scheme: dark) { :root { --bad: #f77; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; }
nav { columns: 18rem; } nav a { display: block; }
code, nav a, h3 { font-family: ui-monospace, monospace; font-size: .9rem; }
h2 { margin-top: 3rem; } h3 { margin-top: 2rem; background: var(--soft); padding: .4rem .6rem; }
div { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; }
td { vertical-align: top; } .refused td { color: var(--bad); } .ignored td { color: var(--dim); }
"""


_making = Lock()  # the first requests of many clients wait for one description


@router.get("/openapi.json", include_in_schema=False)
async def serve_openapi(request: Request) -> Response:
    """The API's description as an OpenAPI document."""
    document, _ = await _description(request.app)
    return Response(document, media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def serve_docs(request: Request) -> Response:
    """The API's description as a page."""
    _, html = await _description(request.app)
    return Response(html, media_type="text/html; charset=utf-8")


async def _description(app: FastAPI) -> tuple[bytes, bytes]:
    """The OpenAPI document and the page."""
    made: tuple[bytes, bytes] | None = getattr(app.state, "description", None)
    return await to_thread.run_sync(_make_description, app) if made is None else made


def _make_description(app: FastAPI) -> tuple[bytes, bytes]:
    with _making:
        if not hasattr(app.state, "description"):
            document = openapi_document(app)
            app.state.description = encode_json(document), page(endpoints(document)).encode()
        made: tuple[bytes, bytes] = app.state.description
        return made


def page(listed: Sequence[Endpoint]) -> str:
    """The HTML of the page."""
    return "\n".join(_lines(listed))


def _lines(listed: Sequence[Endpoint]) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>emojitune: the API</title><style>{_STYLE}</style></head><body>"
    yield "<h1>emojitune: the API</h1>"
    yield "<p>Every endpoint and every parameter. <b>supported</b>: works as OpenAI documents it. "
    yield "<b>refused</b>: a 400 that names the parameter and the reason. <b>ignored</b>: accepted "
    yield "and deliberately not used. null means that a parameter is left out. "
    yield 'For programs: <a href="/openapi.json">openapi.json</a>.</p><nav>'
    for endpoint in listed:
        title = escape(endpoint.title)
        yield f'<a href="#{_anchor(endpoint)}">{title}</a>'
    yield "</nav>"
    for group, members in groupby(listed, key=lambda endpoint: endpoint.group):
        yield f"<h2>{escape(group)}</h2>"
        for endpoint in members:
            yield from _section(endpoint)
    yield "<h2>Not supported</h2>"
    yield "<p>OpenAI has these, this server does not. A request is a 404, Invalid URL.</p><ul>"
    yield from (
        f"<li><code>{escape(path)}</code> {escape(text)}</li>" for path, text in UNSUPPORTED_PATHS
    )
    yield "</ul></body></html>"


def _section(endpoint: Endpoint) -> Iterator[str]:
    yield f'<h3 id="{_anchor(endpoint)}">{escape(endpoint.title)}</h3>'
    yield f"<p>{escape(endpoint.description)}</p>"
    if endpoint.parameters:
        yield "<div><table><tr><th>parameter<th>in<th>type<th>default<th><th>what it does</tr>"
        yield from (_row(parameter) for parameter in endpoint.parameters)
        yield "</table></div>"


def _row(parameter: Parameter) -> str:
    cells = (
        parameter.location,
        parameter.type,
        parameter.default,
        parameter.status,
        parameter.description,
    )
    columns = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    name = escape(parameter.name)
    return f'<tr class="{parameter.status}"><td><code>{name}</code></td>{columns}</tr>'


def _anchor(endpoint: Endpoint) -> str:
    return escape(f"{endpoint.method} {endpoint.path}".replace(" ", ""), quote=True)
