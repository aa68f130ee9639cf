"""The notifier ends at each durable boundary of a decision in turn; what Redis said before, it says no more afterwards."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from streams.topics import ALERTS
from tests.faults.breaking_notifier import NOTIFIER_STEPS
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import COOLDOWNS, FaultError, Servers, Stage, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "crash points, notifier"
BREAKING = (sys.executable, "-m", "tests.faults.breaking_notifier", "run")
SHORT: Final = (("after intents", 0), ("after alert", 12), ("after acks", 1))
"""Steps of the short form, and how often each is passed before."""
OTHERS: Final = "for _, key in ipairs(redis.call('keys', '*:cooldown:*')) do redis.call('set', key, 'another', 'px', 60000) end"
"""Every cooldown belongs to another alert, as on a replica that missed the last claims."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """In the long form each step is hit at its first passage and at a later one, on a kept disk and on a lost one."""
    dice = random.Random(seed)
    every = [(step, after) for after in (0, dice.randint(3, 20)) for step in NOTIFIER_STEPS]
    tape = every if long else list(SHORT)
    forgotten = lost = 0
    with open_stage(servers, folder, seed, own_redis=True) as stage:
        stage.prepare(COOLDOWNS)
        engine = stage.worker("engine", only="engine")
        engine.start()
        await engine.ready()
        async with stage.load() as load:
            steady = asyncio.create_task(load.run(600, 200))
            await asyncio.sleep(2)
            for number, (step, after) in enumerate(tape):
                breaks = {"BREAK_AT": step, "BREAK_AFTER": str(after)}
                worker = stage.breaking(BREAKING, "notifier", f"{number:02}", breaks)
                worker.start()
                if await worker.ended() >= 0:
                    raise FaultError(f"the worker ended by itself, not at {step!r}: see {worker.log}")
                if dice.random() < 0.3:
                    stage.redis.ask("FLUSHALL")
                    forgotten += 1
                else:
                    stage.redis.ask("EVAL", OTHERS, "0")
                if dice.random() < 0.3:
                    worker.lose_disk()
                    lost += 1
            await load.end(steady)
            last = stage.worker("a", only="notifier", instance="a")
            last.start()
            await settled(stage)
        await last.stop()
        await engine.stop()
        found = await verdict(stage)
        differences = (*found.differences, *await differing_copies(stage))
    steps = len({step for step, _ in tape})
    injected = f"{len(tape)} ends at {steps} steps, {lost} with the disk deleted, {forgotten} with Redis emptied, else taken"
    return Row(FAULT, injected, found.compared(), differences)


async def differing_copies(stage: Stage) -> list[str]:
    """Alerts that were sent again, and said something else."""
    said: dict[str, set[bytes]] = defaultdict(set)
    for record in await read_topic(stage.settings, stage.settings.topic_prefix + ALERTS.name):
        said[json.loads(record.value or b"")["id"]].add(record.value or b"")
    return [f"copies differ: {id}: {sorted(texts)}" for id, texts in said.items() if len(texts) > 1]
