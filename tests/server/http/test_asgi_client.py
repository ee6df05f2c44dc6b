import asyncio

import pytest
from fastapi import APIRouter, FastAPI, Request, Response

from emojitune.server.http.asgi_client import accepts_post, post


@pytest.fixture
def application() -> FastAPI:
    router = APIRouter(prefix="/v1/echo")

    @router.post("")
    async def echo(request: Request) -> Response:
        seen = f"{request.headers['content-type']} {request.scope['caller'].project}"
        return Response(await request.body(), 201, {"x-seen": seen})

    @router.post("/for/ever")
    async def wait(request: Request) -> Response:
        await request.body()
        assert (await request.receive())["type"] == "http.disconnect"
        return Response()

    app = FastAPI()
    app.include_router(router)
    return app


def test_a_request_is_answered_as_over_http(application: FastAPI) -> None:
    answer = asyncio.run(post(application, "team", "/v1/echo", b'{"a": "\xc3\xa4"}'))
    assert (answer.status, answer.body) == (201, b'{"a": "\xc3\xa4"}')
    assert answer.headers["x-seen"] == "application/json team"


def test_the_client_stays_until_it_is_cancelled(application: FastAPI) -> None:
    async def give_up() -> None:
        async with asyncio.timeout(0.1):
            await post(application, "team", "/v1/echo/for/ever", b"")

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())


def test_served_paths_are_known_without_a_request(application: FastAPI) -> None:
    assert accepts_post(application.routes, "/v1/echo")
    assert not accepts_post(application.routes, "/v1/embeddings")
