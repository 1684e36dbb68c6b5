"""Play a hundred tasks four times with two worker processes, and keep the rollouts in runs/workers."""

import asyncio
from functools import partial
from pathlib import Path

from gymrail.collect.executors.pool import collect_with_workers
from gymrail.collect.executors.processes import Processes
from gymrail.collect.executors.setup import Setup, source_of
from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job
from gymrail.models.build import build_model
from gymrail.registry import find


async def main() -> None:
    spec = find("session_counter")
    jobs = (Job(spec, task, index, repeat) for index, task in enumerate(spec.tasks(limit=100)) for repeat in range(4))
    # Functions that every worker calls to build what it plays with; they have to be importable there.
    setup = Setup([source_of(spec)], model=partial(build_model, "oracle:0.5", seed=1))
    with RunDirectory.create(Path("runs/workers"), {}, environments=[spec]) as run:
        summary = await collect_with_workers(
            jobs, setup, Processes(), workers=2, concurrency=64, record=run.record_line
        )
    print(f"{summary.scored} scored, {summary.failed} failed")


if __name__ == "__main__":
    asyncio.run(main())
