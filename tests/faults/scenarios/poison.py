"""Every tenth record is poison: all of them become dead letters, no good event is lost, and the good ones hardly slow down."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Final

from tests.faults.gauge import Gauge
from tests.faults.load import Load
from tests.faults.poison import poison
from tests.faults.row import Row
from tests.faults.stage import Servers, Worker, open_stage
from tests.faults.verdict import settled, verdict
from tests.servers.process import free_port

FAULT = "poison"
SHARE: Final = 0.1
READY: Final = "engine: ready"
LEAST: Final = 0.9
"""Of the clean throughput, which is counted in records per second of the processor: the machine may be busy with others."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Backlogs without and with poison, in turns, each folded by a worker that starts on it.

    The short form folds too little to measure the throughput, and folds poison only.
    """
    number, turns = (12_000, 1) if long else (4_000, 1)
    dice = random.Random(seed)
    clean, poisoned, since = 0.0, 0.0, time.time() - 30
    with open_stage(servers, folder, seed, metrics_port=str(free_port())) as stage:
        stage.prepare()
        engine = stage.worker("a", only="engine", instance="a")
        async with stage.load() as load:
            for _ in range(turns):
                if long:
                    since = await _backlog(load, dice, number, 0.0, since)
                    clean = max(clean, await _throughput(engine, number))
                since = await _backlog(load, dice, number, SHARE, since)
                poisoned = max(poisoned, await _throughput(engine, number))
        worker = stage.worker("b", instance="b")
        worker.start()
        await worker.ready("notifier")
        await settled(stage)
        await worker.stop()
        found = await verdict(stage)
    differences = list(found.differences)
    if poisoned < clean * LEAST:
        differences.append(f"{poisoned:,.0f} records/s with poison, and {clean:,.0f} without")
    if not engine.said("could not be processed and went to the dead letters"):
        differences.append("the log of the worker does not tell of the dead letters")
    injected = f"{SHARE:.0%} of {turns * number:,} records"
    if long:
        injected += f"; {poisoned:,.0f} records/s, without poison {clean:,.0f} ({poisoned / clean:.0%})"
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _backlog(load: Load, dice: random.Random, number: int, share: float, since: float) -> float:
    """Send `number` records of the time from `since` to now, which is returned. Were they all of now, windows would be huge."""
    until = time.time()
    for at in range(number):
        now = since + (until - since) * at / number
        if dice.random() < share:
            value, headers = poison(dice, now)
            partition = dice.randrange(load.partitions)
            key = b"poison"  # the client sends no record without key and value
            await load.producer.send(load.topic, value, key=key, headers=headers, partition=partition)
        else:
            await load.send(now)
    await load.producer.flush()
    await load.flush()
    return until


async def _throughput(worker: Worker, number: int) -> float:
    """Records per second of the processor, from when the partitions are open to when a backlog of `number` is folded."""
    before = worker.log.read_text().count(READY) if worker.log.exists() else 0
    worker.start()
    gauge = Gauge(worker)
    while not worker.log.exists() or worker.log.read_text().count(READY) == before:
        await asyncio.sleep(0.002)
    began = gauge.cpu
    await gauge.reaches("records_total", number, role="engine")
    ended = gauge.cpu
    await worker.stop()
    return number / max(ended - began, 0.01)
