"""SIGTERM under load: a clean end after which nothing is read twice, an end without brokers, and a second SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streams.topics import ENGINE, EVENTS, changelog_name, group_name
from tests.faults.load import Load
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import Servers, Stage, Worker, open_stage
from tests.faults.state import fold_changelog, marker_of
from tests.faults.verdict import settled, verdict

FAULT = "shutdown"
WITHIN: Final = 10.0
AT_ONCE: Final = 1.0
RATE: Final = 500.0


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """A clean end in catch-up, and one hurried by a second SIGTERM; more in the long form, and two while the broker is frozen."""
    clean, hurried = (6, 3) if long else (1, 1)
    dice = random.Random(seed)
    wrong: list[str] = []
    longest = 0.0
    with open_stage(servers, folder, seed, own_kafka=long) as stage:
        stage.prepare()
        worker = stage.worker("a", instance="a")
        async with stage.load() as load:
            worker.start()
            await worker.ready()
            for number in range(clean):
                async with _telemetry(load):
                    await asyncio.sleep(dice.uniform(0.5, 2.0))
                    if number == clean // 2:
                        await load.burst(20_000 if long else 3_000, 5)  # told to end in full catch-up
                    longest = max(longest, await _ended(worker, 0, WITHIN, wrong))
                wrong += await _unsaved(stage)
                worker.start()
                await worker.ready()
            for _ in range(hurried):
                async with _telemetry(load):
                    await asyncio.sleep(dice.uniform(0.5, 1.5))
                    _tell(worker)
                    await asyncio.sleep(0.02)
                    await _ended(worker, None, AT_ONCE if long else WITHIN, wrong)  # the short form plays beside other tests
                worker.start()
                await worker.ready()
            for number in range(2 * long):
                async with _telemetry(load):
                    await asyncio.sleep(1)
                    before = len(worker.log.read_text())
                    stage.kafka.pause()
                    await asyncio.sleep(1)
                    if number:
                        _tell(worker)
                        await asyncio.sleep(0.2)
                    await _ended(worker, 1, AT_ONCE if number else WITHIN, wrong)
                    stage.kafka.resume()
                    if not number and (said := worker.log.read_text()[before:]).count("the worker ends") != 1:
                        wrong.append(f"the worker did not say once why it ended: {said[-1000:]}")
                    if "Traceback" in worker.log.read_text()[before:]:
                        wrong.append(f"the worker ended without a broker, and a trace is in {worker.log}")
                worker.start()
                await worker.ready()
            await load.flush()
            await settled(stage)
        await _ended(worker, 0, WITHIN, wrong)
        wrong += await _unsaved(stage)
        found = await verdict(stage)
    injected = f"SIGTERM {clean + 1} times under {RATE:.0f} events/s ({longest:.1f} s at most), twice in a row {hurried} times"
    injected += ", 2 times without a broker" if long else ""
    return Row(FAULT, injected, found.compared(), (*found.differences, *wrong))


@contextlib.asynccontextmanager
async def _telemetry(load: Load) -> AsyncIterator[None]:
    """Load meanwhile, and not while a worker starts: how much there is must not depend on how fast the machine is."""
    steady = asyncio.create_task(load.run(600, RATE))
    try:
        yield
    finally:
        steady.cancel()
        await asyncio.gather(steady, return_exceptions=True)


def _tell(worker: Worker) -> None:
    assert worker.process is not None
    worker.process.terminate()


async def _ended(worker: Worker, status: int | None, within: float, wrong: list[str]) -> float:
    """Tell `worker` to end; the seconds that it took. A wrong status (None: any) or too long a time is a difference."""
    began = time.monotonic()
    found = await worker.stop()
    took = time.monotonic() - began
    if status is not None and found != status:
        wrong.append(f"the worker ended with status {found}, not {status}")
    if took > within:
        wrong.append(f"the worker took {took:.1f} s to end, more than {within:.0f} s")
    return took


async def _unsaved(stage: Stage) -> list[str]:
    """Where what is committed is not what the state covers: records that would be read twice, or never."""
    settings = stage.settings
    tables = fold_changelog(await read_topic(settings, changelog_name(settings.group, ENGINE)))
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(group_name(settings.group, ENGINE))
    finally:
        await admin.close()
    wrong = []
    for number in range(stage.partitions):
        marker = marker_of(tables.get(number, {}))
        held = committed.get(TopicPartition(settings.topic_prefix + EVENTS.name, number))
        if (marker.applied + 1 if marker else None) != (held.offset if held else None):
            wrong.append(f"partition {number}: the state covers {marker}, and {held} is committed")
    return wrong
