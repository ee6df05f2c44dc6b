"""docs/api.md: the endpoints and their parameters as Markdown."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from emojitune.server.docs.reference import UNSUPPORTED_PATHS, Endpoint, Parameter

_HEAD = """\
# The API

Made by `make docs` from the request models and the routes; a running server shows the same at
`/docs`, and as OpenAPI at `/openapi.json`. Change it there, not here.

- **Base URL** `http://HOST:PORT/v1`; every path under it needs `Authorization: Bearer KEY`. A key
  belongs to a project; objects of other projects return 404: `security.md`.
- **Responses** are OpenAI's objects, with all their keys. Additions of this server (`served_by`,
  `alternatives`, a model's `system_prompt`: the one that its training file begins with) are
  further keys, which the official clients ignore.
- **Errors** are OpenAI's: `{"error": {"message", "type", "param", "code"}}`, always with all four
  keys. 400 invalid request, 401 wrong or missing key, 404 not found, 405 method not allowed
  (`Allow` lists those that are), 413 too large, 429 rate limit of the key (`retry-after`), 431 too
  many headers. A wrong parameter is never a 422.
- **Every response**, errors and streams too, has `x-request-id`, `openai-processing-ms`,
  `openai-version` and `openai-organization`; responses to keys made by `emojitune keys create`
  also have `x-ratelimit-limit-`, `-remaining-` and `-reset-` of `requests` and `bytes` per minute.
- **Bodies**: null means that a parameter is left out, also inside objects and for keys of your own.
  A parameter that is not in the table is a 400 (`unknown_parameter`), and so is a value of another
  type: nothing is converted, so "3" is not an integer and true is not a number. Of a duplicate key
  the last value counts. A `Content-Type` that is not JSON is a 400 where JSON is read; a missing
  one, and the one that `curl -d` sends by default, count as JSON.
- **Queries**: a parameter that is not in the table is ignored, since gateways add their own. A
  `limit` out of range is a 400; `after` takes the id of the last item of a page, and an id that is
  not in the list is a 404, never the first page again.
- **Paths** do not end in a slash. HEAD and OPTIONS are not supported (405).
- **Where OpenAI's own types do not fit its own service**, this server does as the service: a paused
  job has the status `paused`, and a file may have the purpose `evals`. Clients that validate types
  strictly raise on both; the official ones do so only on request.

**supported**: works as OpenAI documents it. **refused**: a 400 that names the parameter and the
reason. **ignored**: accepted and deliberately not used, for the reason given.
"""


def markdown(endpoints: Sequence[Endpoint]) -> str:
    """The text of the file."""
    return "\n".join([_HEAD, *_groups(endpoints), *_absent()]) + "\n"


def _groups(endpoints: Sequence[Endpoint]) -> Iterator[str]:
    for group, members in groupby(endpoints, key=lambda endpoint: endpoint.group):
        yield f"## {group}\n"
        for endpoint in members:
            yield f"### {endpoint.title}\n"
            yield f"{endpoint.description}\n"
            if endpoint.parameters:
                yield "| parameter | in | type | default | | what it does |"
                yield "|---|---|---|---|---|---|"
                yield from (_row(parameter) for parameter in endpoint.parameters)
                yield ""


def _absent() -> Iterator[str]:
    yield "## Not supported\n"
    yield "OpenAI has these, this server does not. A request is a 404, as on every unknown path.\n"
    yield "| path | what it is |"
    yield "|---|---|"
    yield from (f"| `{path}` | {text} |" for path, text in UNSUPPORTED_PATHS)


def _row(parameter: Parameter) -> str:
    cells = [
        f"`{parameter.name}`",
        parameter.location,
        parameter.type,
        parameter.default,
        parameter.status,
        parameter.description,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
