"""Every tenth record is poison: all of them become dead letters, no good event is lost, and the good ones hardly slow down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.faults.gauge import Gauge
from tests.faults.load import Load
from tests.faults.poison import poison
from tests.faults.row import Row
from tests.faults.stage import Servers, Stage, Worker, open_stage
from tests.faults.verdict import Verdict, settled, verdict
from tests.servers.process import free_port

FAULT = "poison"
SHARE: Final = 0.1
LEAST: Final = 0.9
"""Of the clean throughput, which is counted in records per second of the processor: the machine may be busy with others."""


SPAN: Final = 30.0
"""Seconds of telemetry in each backlog. Were it all of now, windows would be huge."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Backlogs without and with poison, in turns, each on topics of its own and folded by a worker that starts on it.

    The short form folds too little to measure the throughput, and folds poison only.
    """
    number, turns = (80_000, 1) if long else (4_000, 1)
    clean, poisoned = [], []
    differences: list[str] = []
    compared: list[str] = []
    for turn in range(turns):
        if long:
            with _stage(servers, folder / f"clean-{turn}", seed + turn) as stage:
                clean.append((await _folded(stage, number, 0.0))[0])
        with _stage(servers, folder / f"poison-{turn}", seed + turn) as stage:
            throughput, engine = await _folded(stage, number, SHARE)
            poisoned.append(throughput)
            found = await _judged(stage)
        compared.append(found.compared())
        differences += found.differences
        if not engine.said("could not be processed and went to the dead letters"):
            differences.append("the log of the worker does not tell of the dead letters")
    injected = f"{SHARE:.0%} of {turns * number:,} records"
    if long:
        with_poison, without = max(poisoned), max(clean)
        injected += (
            f"; {with_poison:,.0f} records/s of the processor, without poison {without:,.0f} ({with_poison / without:.0%})"
        )
        if with_poison < without * LEAST:
            differences.append(f"{with_poison:,.0f} records/s with poison, and {without:,.0f} without")
    return Row(FAULT, injected, " + ".join(compared), tuple(differences))


@contextlib.contextmanager
def _stage(servers: Servers, folder: Path, seed: int) -> Iterator[Stage]:
    with open_stage(servers, folder, seed, metrics_port=str(free_port())) as stage:
        stage.prepare()
        yield stage


async def _folded(stage: Stage, number: int, share: float) -> tuple[float, Worker]:
    """The throughput of an engine that folds a backlog, and the engine, which has ended."""
    engine = stage.worker("a", only="engine", instance="a")
    async with stage.load() as load:
        await _backlog(load, number, share)
        return await _throughput(engine, number), engine


async def _judged(stage: Stage) -> Verdict:
    """The verdict, once the notifier has seen what the engine said."""
    worker = stage.worker("b", instance="b")
    worker.start()
    await worker.ready("notifier")
    await settled(stage)
    await worker.stop()
    return await verdict(stage)


async def _backlog(load: Load, number: int, share: float) -> None:
    """Send `number` records of the SPAN before now."""
    began = time.time() - SPAN
    dice = load.random
    for at in range(number):
        now = began + SPAN * at / number
        if dice.random() < share:
            value, headers = poison(dice, now)
            partition = dice.randrange(load.partitions)
            key = b"poison"  # the client sends no record without key and value
            await load.producer.send(load.topic, value, key=key, headers=headers, partition=partition)
        else:
            await load.send(now)
    await load.producer.flush()
    await load.flush()


async def _throughput(worker: Worker, number: int) -> float:
    """Records per CPU second over the last three quarters of a backlog of `number`: what a start costs is left out."""
    worker.start()
    await worker.ready()
    gauge = Gauge(worker)
    seen = []
    for least in (number // 4, number):
        await gauge.reaches("records_total", least, role="engine")
        seen.append((gauge.metric("records_total", role="engine"), gauge.cpu))
    await worker.stop()
    (first, began), (last, ended) = seen
    return (last - first) / max(ended - began, 0.01)
