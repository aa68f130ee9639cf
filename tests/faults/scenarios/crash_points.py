"""The engine ends at each durable boundary of a checkpoint in turn, also between the parts of a large one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streams.topics import ENGINE, changelog_name
from tests.faults.breaking_worker import ENGINE_STEPS
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import FaultError, Servers, Stage, Worker, open_stage, until
from tests.faults.verdict import settled, verdict

FAULT = "crash points, engine"
BREAKING = (sys.executable, "-m", "tests.faults.breaking_worker", "run")
PART = b"\0part/"
SMALL = 12_000
"""Bytes of a batch that make most checkpoints take several."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Each step is passed once, in the long form also after one and after four passages, before the process ends there."""
    passes = (0, 1, 4) if long else (0,)
    hit: list[str] = []
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        notifier = stage.worker("notifier", only="notifier")
        notifier.start()
        async with stage.load() as load:
            steady = asyncio.create_task(load.run(600, 500))
            tape = [(step, after, limit) for after in passes for limit in (None, SMALL) for step in steps(limit)]
            for number, (step, after, size) in enumerate(tape):
                worker = broken(stage, f"{number:02}", step, after, size)
                worker.start()
                if await worker.ended() >= 0:
                    raise FaultError(f"the worker ended by itself, not at {step!r}: see {worker.log}")
                hit.append(step)
            await load.end(steady)
            last = stage.worker("a", only="engine", instance="a")
            last.start()
            await settled(stage)
        await last.stop()
        await notifier.stop()
        found = await verdict(stage)
        changelog = await read_topic(stage.settings, changelog_name(stage.settings.group, ENGINE))
    if not any((record.key or b"").startswith(PART) for record in changelog):
        raise FaultError("no checkpoint was written in parts")
    injected = f"{len(hit)} ends at {len(set(hit))} steps, whole and in parts"
    return Row(FAULT, injected, found.compared(), found.differences)


def steps(size: int | None) -> tuple[str, ...]:
    """Where to break; of a checkpoint in parts only the steps that differ."""
    return ENGINE_STEPS if size is None else ("after acks", "after changelog", "after table")


def broken(stage: Stage, name: str, step: str, after: int, size: int | None, by: str = "SIGKILL") -> Worker:
    """An engine, always of the same instance and folder, that breaks at `step`."""
    after += size is not None  # so that it breaks between parts, not before the first
    worker = stage.breaking(BREAKING, "engine", name, {"BREAK_AT": step, "BREAK_AFTER": str(after), "BREAK_BY": by})
    if size is not None:
        worker.variables["BREAK_LIMIT"] = str(size)
    return worker


async def frozen(stage: Stage, name: str) -> None:
    """Wait until the worker of `name` has stopped itself."""
    path = stage.break_log(name)
    await until(path.exists, f"{path} to be written")
