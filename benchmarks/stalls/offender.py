"""The offender, a process of its own: `python -m benchmarks.stalls.offender URL KEY NAME...`.

Attacks again and again, until it is killed: with one attack, each as soon as the last is answered;
with several, one at random at a time, and leaves each after some seconds at most. Prints a line of
JSON after each attack: a list of answers, each a status and a message.
"""

import asyncio
import json
import random
import sys
from urllib.parse import urlsplit

import httpx2

from benchmarks.stalls.attacks import BY_NAME, Answer, Target

PATIENCE = 15.0  # seconds
_LEAST_SECONDS = 0.2  # from one attack to the next: not what the rate limits already refuse


async def main(url: str, key: str, *names: str) -> None:
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    headers = {"Authorization": f"Bearer {key}"}
    print(flush=True)  # the libraries are imported
    while True:
        attack = BY_NAME[random.choice(names)]
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(
            base_url=url, headers=headers, limits=limits, timeout=600, trust_env=False
        ) as client:
            target = Target(client, address.hostname, address.port, key)
            try:
                async with asyncio.timeout(PATIENCE if len(names) > 1 else None):
                    answers = await attack.run(target)
            except TimeoutError:
                answers = [Answer("left")]
        lines = [(answer.status, answer.message) for answer in answers]
        print(json.dumps(lines), flush=True)
        await asyncio.sleep(_LEAST_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
