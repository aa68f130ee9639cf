"""Workers killed with SIGKILL at random moments, under a steady load and in full catch-up, half of them with their disk lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.faults.row import Row
from tests.faults.stage import Servers, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "worker kill -9"


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
    injected = f"{kills} kills at {rate:.0f} events/s and in a backlog of {2 * backlog:,}, {lost} with the disk deleted"
    return Row(FAULT, injected, found.compared(), found.differences)
