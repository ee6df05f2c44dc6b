"""One request never stalls another: `python -m benchmarks.stalls [--only ATTACK] [--minutes 20]`.

One project's key attacks a real server, each row on a new one, while another project chats and two
clients poll light endpoints. A row breaks a bound where the honest ones wait, where the server
computes on after the offender left, or where memory or descriptors stay taken. With --minutes, all
attacks come at random beside several honest clients, none of whose requests may fail. Ends with 1
when a bound is broken.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks import machine, report
from benchmarks.contenders import base_model
from benchmarks.stalls import honest, verdict
from benchmarks.stalls.attacks import ATTACKS, BY_NAME, Attack
from benchmarks.stalls.foreign_models import hub, make_cache
from benchmarks.stalls.server import Server, serving
from benchmarks.stalls.verdict import Row, Usage

WARM_UP, USUAL = 4.0, 4.0  # seconds of honest traffic before the attack
ROW_SECONDS = 40.0  # of a row in all, at first guess
SAMPLE_SECONDS = 0.05


@asynccontextmanager
async def attacking(server: Server, names: Sequence[str]) -> AsyncIterator[Counter[str]]:
    """Run a block beside the offender, who leaves at its end; yields a count of the answers."""
    answers: Counter[str] = Counter()
    command = [sys.executable, "-m", "benchmarks.stalls.offender", server.url, server.offender]
    process = await asyncio.create_subprocess_exec(
        *command, *names, stdout=asyncio.subprocess.PIPE, limit=2**20
    )
    assert process.stdout is not None
    await process.stdout.readline()

    async def listen(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            answers.update(" ".join(answer).strip() for answer in json.loads(line))

    listening = asyncio.create_task(listen(process.stdout))
    try:
        yield answers
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


@asynccontextmanager
async def sampling(server: Server, every: float) -> AsyncIterator[list[Usage]]:
    """Run a block while the server's usage is sampled."""
    samples = [server.usage()]

    async def sample() -> None:
        while True:
            await asyncio.sleep(every)
            samples.append(server.usage())

    task = asyncio.create_task(sample())
    try:
        yield samples
    finally:
        task.cancel()


async def measure(attack: Attack, server: Server, seconds: float) -> Row:
    """The row of an attack that goes on for `seconds`."""
    await honest.warm_up(server)
    async with honest.traffic(server):
        await asyncio.sleep(WARM_UP)
    async with honest.traffic(server) as usual:
        await asyncio.sleep(USUAL)
    before = server.usage()
    async with sampling(server, SAMPLE_SECONDS) as samples:
        async with (
            attacking(server, [attack.name]) as answers,
            honest.traffic(server) as during,
        ):
            await asyncio.sleep(seconds)
        quiet = await server.until_quiet()
    return Row(
        attack.name,
        {path: during.times[path] for path in honest.POLLED},
        usual.times[honest.CHAT],
        during.times[honest.CHAT],
        usual.failures + during.failures,
        dict(answers) or {"no answer before it left": 1},
        quiet,
        before,
        max(sample.mb for sample in samples),
        await server.until_memory_is_back(before),
        died=not server.alive(),
    )


async def each(
    attacks: Sequence[Attack], seconds: float, environment: Mapping[str, str], console: Console
) -> list[Row]:
    """A row for each attack, on a server of its own."""
    rows: list[Row] = []
    began = time.monotonic()
    for number, attack in enumerate(attacks):
        pace = (time.monotonic() - began) / number if number else ROW_SECONDS
        left = pace * (len(attacks) - number) / 60
        console.print(
            f"{number + 1}/{len(attacks)}: {attack.name}, about {left:.0f} min left",
            highlight=False,
        )
        with (
            TemporaryDirectory() as home,
            serving(Path(home), environment, attack.descriptors) as server,
        ):
            rows.append(await measure(attack, server, seconds))
        for bound in verdict.broken(rows[-1]):
            console.print(f"  broken: {bound}", highlight=False)
    return rows


async def mixed(
    attacks: Sequence[Attack], minutes: float, environment: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """All attacks at random for some minutes, beside several honest clients."""
    names = [attack.name for attack in attacks]
    with TemporaryDirectory() as home, serving(Path(home), environment) as server:
        async with honest.traffic(server, chats=3, others=True):
            await asyncio.sleep(WARM_UP)
        async with (
            sampling(server, 1.0) as samples,
            attacking(server, names) as answers,
            honest.traffic(server, chats=3, others=True) as found,
        ):
            for minute in range(ceil(minutes)):
                await asyncio.sleep(60 * min(1.0, minutes - minute))
                console.print(
                    f"{minute + 1}/{ceil(minutes)} min: {samples[-1].mb:,.0f} MB, "
                    f"{samples[-1].descriptors} descriptors, {len(found.failures)} failures",
                    highlight=False,
                )
        return {
            "requests": {
                kind: {"count": len(times), "p50": median(times), "worst": max(times)}
                for kind, times in found.times.items()
            },
            "failures": found.failures,
            "answers": dict(answers),
            "MB grown": verdict.growth([sample.mb for sample in samples]),
            "descriptors grown": verdict.growth([sample.descriptors for sample in samples]),
            "MB peak": max(sample.mb for sample in samples),
            "server ended": not server.alive(),
        }


def mixed_is_flat(found: dict[str, Any]) -> bool:
    """Whether no honest request failed, and neither memory nor descriptors grew."""
    return not (
        found["failures"]
        or found["server ended"]
        or found["MB grown"] > verdict.MAX_MEMORY_KEPT
        or found["descriptors grown"] > verdict.MAX_DESCRIPTORS_KEPT
    )


async def run(given: argparse.Namespace, console: Console) -> bool:
    """All that was requested; whether every bound is kept."""
    attacks = [BY_NAME[name] for name in given.only] if given.only else ATTACKS
    before = machine.state()
    with TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        make_cache(base_model(), cache)
        async with hub() as url:
            environment = {"HF_ENDPOINT": url, "EMOJITUNE_CACHE": str(cache)}
            if given.minutes:
                found = await mixed(attacks, given.minutes, environment, console)
                console.print(found, highlight=False)
                report.write(given.json, console, {"machine": before, **found})
                return mixed_is_flat(found)
            rows = await each(attacks, given.seconds, environment, console)
    console.print(verdict.table(rows))
    shown = [
        {**asdict(row), "broken": verdict.broken(row), "slowdown": verdict.slowdown(row)}
        for row in rows
    ]
    report.write(given.json, console, {"machine": before, "rows": shown})
    return not any(verdict.broken(row) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=BY_NAME, metavar="ATTACK", help="these rows")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each attack")
    parser.add_argument("--minutes", type=float, help="all attacks mixed, in place of the rows")
    parser.add_argument("--json", type=Path, default=report.RESULTS / "stalls.json")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "0"  # the hub is ours
    # Ended from outside, as by `timeout`, it ends its server and offender, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(0 if asyncio.run(run(given, Console(width=180))) else 1)


if __name__ == "__main__":
    main()
