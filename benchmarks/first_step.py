"""From the request that makes a job to its first step: `python -m benchmarks.first_step [JOBS]`.

Starts a real server, has it run JOBS jobs one after the other, each followed through the
official client to the event of its first step and then cancelled, and prints the seconds.
"""

import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from openai import OpenAI

from benchmarks.processes import say
from benchmarks.together import TRAIN, Job
from emojitune.settings import Settings
from emojitune.workflow.provider import connect


def seconds_to_first_step(client: OpenAI, file: str) -> float:
    began = time.monotonic()
    job = Job(client, file, epochs=1)
    _, ended = job.next_step(after=0)
    job.end(cancel=True)
    return ended - began


def main(jobs: str = "5") -> None:
    with TemporaryDirectory() as home, connect("local", Settings(home=Path(home))) as connection:
        with TRAIN.open("rb") as lines:
            file = connection.client.files.create(file=lines, purpose="fine-tune").id
        found = [seconds_to_first_step(connection.client, file) for _ in range(int(jobs))]
    say({"median_s": median(found), "seconds": [round(one, 2) for one in found]})


if __name__ == "__main__":
    main(*sys.argv[1:])
