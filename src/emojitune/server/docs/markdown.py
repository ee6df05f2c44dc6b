"""docs/api.md: the endpoints and their parameters as Markdown."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from emojitune.server.docs.reference import UNSUPPORTED_PATHS, Endpoint, Parameter

_HEAD = """\
# The API

Made by `make docs` from the request models and the routes; a running server shows the same at
`/docs`, and as OpenAPI at `/openapi.json`. Change it there, not here.

- **Base URL** `http://HOST:PORT/v1`; every path under it needs `Authorization: Bearer KEY`. A key
  belongs to a project, and what is another project's answers as what never was: `security.md`.
- **Replies** are OpenAI's objects, with all their keys. What is ours besides (`served_by`,
  `alternatives`, a model's `system_prompt`: the one that its training file begins with) is a
  further key, which the official clients pass over.
- **Errors** are OpenAI's: `{"error": {"message", "type", "param", "code"}}`, all four keys always.
  400 a rule is broken, 401 the key, 404 not there, 405 not with this method (`Allow` says which),
  413 too large, 429 more than this key may ask for now (`retry-after`), 431 too many headers. A
  wrong parameter is never a 422.
- **Every response**, errors and streams too, has `x-request-id`, `openai-processing-ms`,
  `openai-version` and `openai-organization`; those to keys made by `emojitune keys create` also
  `x-ratelimit-limit-`, `-remaining-` and `-reset-` of `requests` and `bytes` a minute.
- **Bodies**: null stands for a parameter that is left out, inside of objects and for keys of your
  own, too. A parameter that is not in the table is a 400 (`unknown_parameter`); a value of another
  type is one too: nothing is converted, so "3" is no integer and true is no number. Of a key that
  comes twice the last counts. A `Content-Type` that is not JSON is a 400 where JSON is read; none
  at all, and the one that `curl -d` sends by itself, are taken for JSON.
- **Queries**: what is not in the table is passed over, as gateways add their own. `limit` out of
  its range is a 400; `after` takes the id of the last item of a page, and an id that is not in the
  list is a 404, never page one again.
- **Paths**: no slash at their end. HEAD and OPTIONS are not served (405).
- **Where OpenAI's own types do not fit its own service**, this server does as the service: a paused
  job has the status `paused`, and a file may have the purpose `evals`. Clients that check types
  strictly raise on both; the official ones do so only when told to.

**supported**: does what OpenAI says. **refused**: a 400 that names the parameter and the reason.
**ignored**: accepted and, on purpose, not used, for the reason given.
"""


def markdown(endpoints: Sequence[Endpoint]) -> str:
    """The whole file."""
    return "\n".join([_HEAD, *_groups(endpoints), *_absent()]) + "\n"


def _groups(endpoints: Sequence[Endpoint]) -> Iterator[str]:
    for group, members in groupby(endpoints, key=lambda endpoint: endpoint.group):
        yield f"## {group}\n"
        for endpoint in members:
            yield f"### {endpoint.title}\n"
            yield f"{endpoint.text}\n"
            if endpoint.parameters:
                yield "| parameter | in | type | default | | what it does |"
                yield "|---|---|---|---|---|---|"
                yield from (_row(parameter) for parameter in endpoint.parameters)
                yield ""


def _absent() -> Iterator[str]:
    yield "## What OpenAI has and this server has not\n"
    yield 'A request there is answered as on every unknown path: 404, "Invalid URL (POST /v1/…)".\n'
    yield "| path | what it is |"
    yield "|---|---|"
    yield from (f"| `{path}` | {text} |" for path, text in UNSUPPORTED_PATHS)


def _row(parameter: Parameter) -> str:
    cells = [
        f"`{parameter.name}`",
        parameter.place,
        parameter.type,
        parameter.default,
        parameter.status,
        parameter.text,
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
