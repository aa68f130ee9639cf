"""Workers frozen past their session, replaced, and continued: at any moment, and between two steps of a checkpoint.

Without fencing the pending state of a zombie lands after its successor's, and compaction then keeps it for good.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from streams.topics import ENGINE
from tests.faults.row import Row
from tests.faults.scenarios.changelog import HARD, Changelogs
from tests.faults.scenarios.crash_points import broken, frozen
from tests.faults.stage import Servers, Worker, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "zombie"
SESSION = 6


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Frozen between acks and changelog; in the long form also at other steps and at random moments, eight times in all."""
    steps = ("after acks", "after changelog", "after table", "before commit") if long else ("after acks",)
    rounds = 4 if long else 0
    with open_stage(servers, folder, seed, session_timeout=str(SESSION)) as stage:
        stage.prepare()
        notifier = stage.worker("notifier", only="notifier")
        notifier.start()
        refused = 0
        async with stage.load() as load:
            steady = asyncio.create_task(load.run(600, 400))
            successor = stage.worker("b", only="engine")
            for number, step in enumerate(steps):
                zombie = broken(stage, f"zombie-{number}", step, 4, None, by="SIGSTOP")
                zombie.start()
                await frozen(stage, f"zombie-{number}")
                refused += await replaced(zombie, successor)
                await successor.stop()
            for _ in range(rounds):
                zombie = stage.worker("a", only="engine", instance="a")
                zombie.start()
                await zombie.ready()
                await asyncio.sleep(1.0)
                zombie.pause()
                refused += await replaced(zombie, successor)
                await successor.stop()
            await load.end(steady)
            successor.start()
            await settled(stage)
            async with Changelogs(stage) as changelogs:  # workers go on to write
                await changelogs.configure(ENGINE, HARD)
                removed = await changelogs.compacted(ENGINE, share=0.5)
        await successor.stop()
        await notifier.stop()
        found = await verdict(stage)
    injected = (
        f"{len(steps)} frozen between two steps, {rounds} at random; {refused} writes refused; {removed:,} records compacted away"
    )
    return Row(FAULT, injected, found.compared(), found.differences + (() if refused else ("no write of a zombie was refused",)))


async def replaced(zombie: Worker, successor: Worker) -> int:
    """Let `successor` take over, then the zombie go on; 1 if it was refused. It has ended afterwards."""
    successor.start()
    await successor.ready(within=SESSION + 30)
    await asyncio.sleep(2.5)  # the successor has saved, so that what the zombie holds is old
    zombie.resume()
    await asyncio.sleep(2.0)
    refused = zombie.said("another worker has taken over")
    zombie.kill()
    return int(refused)
