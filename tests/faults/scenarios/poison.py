"""Every tenth record is poison: all of them become dead letters, no good event is lost, and the good ones hardly slow down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.command import tocsin
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
LOOK_EVERY: Final = 0.1
"""Seconds. A look at the metrics costs the worker as much as hundreds of records."""
SPAN: Final = 30.0
"""Seconds of telemetry in each backlog. Were it all of now, windows would be huge."""
TIMES: Final = 3
"""Engines, each a group of its own, that fold a backlog; the best counts, since the machine may be busy with others."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """A backlog without poison and one with it, each on topics of its own.

    The short form folds too little to measure the throughput, and folds poison only.
    """
    number, times = (80_000, TIMES) if long else (4_000, 1)
    if long:
        with _stage(servers, folder / "clean", seed) as stage:
            clean = await _folded(stage, number, 0.0, times)
    with _stage(servers, folder / "poison", seed) as stage:
        poisoned = await _folded(stage, number, SHARE, times)
        found = await _judged(stage)
        differences = list(found.differences)
        if not stage.workers[0].said("could not be processed and went to the dead letters"):
            differences.append("the log of the worker does not tell of the dead letters")
    injected = f"{SHARE:.0%} of {number:,} records"
    if long:
        injected += f"; {poisoned:,.0f} records per CPU second, without poison {clean:,.0f} ({poisoned / clean:.0%})"
        if poisoned < clean * LEAST:
            differences.append(f"{poisoned:,.0f} records per CPU second with poison, and {clean:,.0f} without")
    return Row(FAULT, injected, found.compared(), tuple(differences))


@contextlib.contextmanager
def _stage(servers: Servers, folder: Path, seed: int) -> Iterator[Stage]:
    with open_stage(servers, folder, seed, metrics_port=str(free_port())) as stage:
        stage.prepare()
        yield stage


async def _folded(stage: Stage, number: int, share: float, turns: int) -> float:
    """The best throughput of engines that fold a backlog."""
    async with stage.load() as load:
        await _backlog(load, number, share)
    found = []
    for turn in range(turns):
        group = stage.settings.group + (f"-{turn}" if turn else "")
        if turn:
            done = tocsin(stage.environment() | {"TOCSIN_GROUP": group}, "topics", "--partitions", str(stage.partitions))
            assert not done.returncode, done.stderr
        found.append(await _throughput(stage.worker(f"a{turn}", only="engine", instance="a", group=group), number))
    return max(found)


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
        await gauge.reaches("records_total", least, every=LOOK_EVERY, role="engine")
        seen.append((gauge.metric("records_total", role="engine"), gauge.cpu))
    await worker.stop()
    (first, began), (last, ended) = seen
    return (last - first) / max(ended - began, 0.01)
