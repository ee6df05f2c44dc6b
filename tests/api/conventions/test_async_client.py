"""The asynchronous client at its strictest, with the endpoints that other modules do not cover.

Files, uploads, jobs and events, models, responses and batches have such a test in their modules.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI, NotFoundError
from servers import KEY

MODEL = "gpt-3.5-turbo"
MESSAGES: Any = [{"role": "user", "content": "What a day"}]

Use = Callable[[Callable[[AsyncOpenAI], Awaitable[None]]], None]


@pytest.fixture
def use(server) -> Use:
    """Runs a coroutine function with a client, in an event loop of its own."""

    async def opened(work: Callable[[AsyncOpenAI], Awaitable[None]]) -> None:
        async with AsyncOpenAI(
            base_url=server.url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client:
            await work(client)

    return lambda work: asyncio.run(opened(work))


def test_chat_whole_and_streamed(use: Use) -> None:
    async def work(client: AsyncOpenAI) -> None:
        create = client.chat.completions.create
        whole = await create(model=MODEL, messages=MESSAGES, n=2)
        assert [choice.message.content for choice in whole.choices] == ["(party)", "(party)"]
        options: Any = {"include_usage": True}
        stream = await create(model=MODEL, messages=MESSAGES, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(texts) == "(party)"
        assert chunks[-1].usage is not None
        assert all(chunk.usage is None for chunk in chunks[:-1])

    use(work)


def test_many_requests_at_once(use: Use) -> None:
    async def work(client: AsyncOpenAI) -> None:
        create = client.chat.completions.create
        calls = [
            create(model=MODEL, messages=[{"role": "user", "content": f"say: {number} is here"}])
            for number in range(20)
        ]
        replies = [reply.choices[0].message.content for reply in await asyncio.gather(*calls)]
        assert replies == [f"{number} is here" for number in range(20)]

    use(work)


def test_an_abandoned_stream_ends(use: Use, server) -> None:
    async def work(client: AsyncOpenAI) -> None:
        endless: Any = [{"role": "user", "content": "go on for ever"}]
        async with await client.chat.completions.create(
            model=MODEL, messages=endless, stream=True
        ) as stream:
            await anext(aiter(stream))

    use(work)
    assert server.chat_model.generations[-1].cancelled.wait(5)


def test_stored_completions(use: Use) -> None:
    async def work(client: AsyncOpenAI) -> None:
        stored = client.chat.completions
        made = await stored.create(
            model=MODEL, messages=MESSAGES, store=True, metadata={"by": "async"}
        )
        assert (await stored.retrieve(made.id)).id == made.id
        changed = await stored.update(made.id, metadata={"by": "me"})
        assert changed.metadata == {"by": "me"}
        assert made.id in [each.id async for each in stored.list(metadata={"by": "me"}, limit=1)]
        # The strict client parses every role as the assistant's: see trap 29.
        async with AsyncOpenAI(base_url=client.base_url, api_key=KEY, max_retries=0) as loose:
            listed = loose.chat.completions.messages.list(made.id, limit=1)
            assert [message.content async for message in listed] == ["What a day"]
        assert (await stored.delete(made.id)).deleted
        with pytest.raises(NotFoundError):
            await stored.retrieve(made.id)

    use(work)


def test_embeddings(use: Use) -> None:
    async def work(client: AsyncOpenAI) -> None:
        created = await client.embeddings.create(
            model="text-embedding-3-small", input=["dog", "party"], encoding_format="float"
        )
        assert [item.index for item in created.data] == [0, 1]
        assert np.linalg.norm(created.data[1].embedding) == pytest.approx(1.0, abs=1e-6)

    use(work)


def test_a_jobs_checkpoints_and_graders(use: Use, server) -> None:
    async def work(client: AsyncOpenAI) -> None:
        file = await client.files.create(file=b"{}\n", purpose="fine-tune")
        job = await client.fine_tuning.jobs.create(model=MODEL, training_file=file.id)
        for step in (3, 6):
            server.context.stores.jobs.add_checkpoint(
                job.id, model=f"ft:x:local::{step}", step=step, metrics={"step": step}
            )
        listed = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
        assert [checkpoint.step_number async for checkpoint in listed] == [6, 3]

        grader: Any = {
            "type": "string_check",
            "name": "same",
            "operation": "eq",
            "input": "{{sample.output_text}}",
            "reference": "(party)",
        }
        graders = client.fine_tuning.alpha.graders
        assert (await graders.validate(grader=grader)).grader is not None
        assert (await graders.run(grader=grader, model_sample="(party)", item={})).reward == 1.0

    use(work)
