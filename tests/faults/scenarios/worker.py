"""Workers killed with SIGKILL at random moments, under a steady load and in full catch-up, half of them with their disk lost."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from datetime import datetime
from pathlib import Path
from typing import Final

from streams.topics import TRANSITIONS
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import Servers, Stage, Worker, open_stage
from tests.faults.verdict import DECISION, settled, verdict

FAULT = "worker kill -9"
DECIDES_WITHIN: Final = 5.0
"""Seconds from when the group gives partitions to a restarted worker; judged in the long form, which plays alone."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """20 kills in the long form, 3 in the short one, half of them while a backlog is folded."""
    kills, rate = (20, 500.0) if long else (3, 500.0)
    backlog = 30_000 if long else 6_000
    dice = random.Random(seed)
    lost = 0
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        worker = stage.worker("a", instance="a")
        async with stage.load() as load:
            await load.burst(backlog, 20)  # the first kills meet the backlog
            worker.start()
            steady = asyncio.create_task(load.run(kills * 3.5 + 2, rate))
            for number in range(kills):
                await worker.ready()
                await asyncio.sleep(dice.uniform(0.05, 2.0))
                worker.kill()
                if number % 2:
                    worker.lose_disk()
                    lost += 1
                if number == kills // 2:
                    await load.burst(backlog, 5)
                worker.start()
            await worker.ready()
            await steady
            await load.flush()
            await settled(stage)
        await worker.stop()
        found = await verdict(stage)
        pauses = await _pauses(stage, worker)
    differences = list(found.differences)
    injected = f"{kills} kills at {rate:.0f} events/s and in a backlog of {2 * backlog:,}, {lost} with the disk deleted"
    if pauses:
        injected += f"; from assignment to the first decision at most {max(pauses):.1f} s"
    if long and not (pauses and max(pauses) < DECIDES_WITHIN):
        differences.append(f"seconds from assignment to the first decision: {pauses}")
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _pauses(stage: Stage, worker: Worker) -> list[float]:
    """For each start that lived to decide something: seconds from the assignment of partitions to the first decision."""
    starts = [
        datetime.fromisoformat(line[:23]).timestamp()
        for line in worker.log.read_text(errors="replace").splitlines()
        if "engine: assigned partitions" in line
    ]
    records = await read_topic(stage.settings, stage.settings.topic_prefix + TRANSITIONS.name)
    decided = [record.timestamp / 1000 for record in records if not any(name == DECISION for name, _ in record.headers)]
    pauses = []
    for start, end in itertools.pairwise([*starts, math.inf]):
        first = min((at for at in decided if start <= at < end), default=None)
        if first is not None:
            pauses.append(first - start)
    return pauses
