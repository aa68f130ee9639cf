"""Workers that come, go and are killed, with eight partitions: nobody waits for longer than a session and a recovery."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from pathlib import Path

from streams.topics import ENGINE, changelog_name
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import Servers, Stage, Worker, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "rebalance"
PARTITIONS = 8
SESSION = 6.0
RECOVERY = 6.0
"""Seconds that rebalances and recoveries may take beside the session timeout."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Every five seconds (three in the short form) one of three workers is killed, leaves, or comes back."""
    changes, pause = (22, 5.0) if long else (3, 3.0)
    dice = random.Random(seed)
    done: dict[str, int] = defaultdict(int)
    with open_stage(servers, folder, seed, partitions=PARTITIONS, session_timeout=str(int(SESSION))) as stage:
        stage.prepare()
        workers = [stage.worker(name) for name in ("a", "b", "c")]
        async with stage.load() as load:
            for worker in workers[:2]:
                worker.start()
            await workers[0].ready()
            steady = asyncio.create_task(load.run(changes * pause + 2, 400))
            for number in range(changes):
                done[await _change(workers, dice, number)] += 1
                await asyncio.sleep(pause)
            await steady
            await load.flush()
            for worker in workers:
                if not worker.is_running:
                    worker.start()
            await settled(stage)
        for worker in workers:
            await worker.stop()
        found = await verdict(stage)
        longest = await longest_pause(stage)
    differences = list(found.differences)
    if longest > SESSION + RECOVERY:
        differences.append(
            f"a partition made no progress for {longest:.1f} s; session and recovery allow {SESSION + RECOVERY:.0f} s"
        )
    injected = ", ".join(f"{number} {what}" for what, number in sorted(done.items()))
    return Row(FAULT, f"{injected}; longest pause {longest:.1f} s", found.compared(), tuple(differences))


async def _change(workers: list[Worker], dice: random.Random, number: int) -> str:
    away = [worker for worker in workers if not worker.is_running]
    here = [worker for worker in workers if worker.is_running]
    if away and number % 2 == 0:
        dice.choice(away).start()
        return "joins"
    worker = dice.choice(here)
    if number % 4 == 1:
        worker.kill()
        if dice.random() < 0.5:
            worker.lose_disk()
        return "kills"
    await worker.stop()
    return "leaves"


async def longest_pause(stage: Stage) -> float:
    """The longest time between two records of a partition of the changelog, in seconds, while events came."""
    times: dict[int, list[int]] = defaultdict(list)
    for record in await read_topic(stage.settings, changelog_name(stage.settings.group, ENGINE)):
        times[record.partition].append(record.timestamp)
    pauses = [after - before for each in times.values() for before, after in itertools.pairwise(each)]
    return max(pauses, default=0) / 1000
