"""Compressed batches that hold hundreds of MiB, on every partition of a worker that has 512 MiB in all."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer

from streams.topics import EVENTS
from tests.command import TOCSIN
from tests.faults.bombs import MIB, SIZES, Bomb, no_caps
from tests.faults.gauge import Gauge
from tests.faults.row import Row
from tests.faults.stage import PARTITIONS, Servers, Stage, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "bombs"
LIMIT: Final = 512
"""MiB that the worker may have."""
_GROUPS: Final = Path("/sys/fs/cgroup/memory")


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Each codec on each partition in the long form, each codec on one partition in the short one."""
    places = [(codec, number) for number, codec in enumerate(SIZES)]
    if long:
        places = [(codec, number) for codec in SIZES for number in range(PARTITIONS)]
    with open_stage(servers, folder, seed) as stage, _memory_limit() as group, no_caps():
        stage.prepare()
        joining = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); " if group else ""
        worker = stage.worker("a", instance="a", command=(sys.executable, "-c", joining + TOCSIN[2], "run"))
        worker.start()
        async with stage.load() as load:
            await worker.ready()
            steady = asyncio.create_task(load.run(8 if long else 3, 300))
            weights = await _drop(stage, places)
            await steady
            await load.flush()
            await settled(stage)
        most = Gauge(worker).memory("VmHWM")
        await worker.stop()
        found = await verdict(stage)
    differences = list(found.differences)
    if most >= LIMIT:
        differences.append(f"the worker had {most:.0f} MiB")
    if worker.started != 1 or found.dead_letters != len(places):
        differences.append(f"{found.dead_letters} dead letters of {len(places)} bombs")
    bombs = ", ".join(f"{codec} {weight >> 10} KiB of {SIZES[codec] // MIB} MiB" for codec, weight in weights.items())
    limited = "by a control group" if group else "by measurement"
    injected = f"{len(places)} batches: {bombs}; {most:.0f} MiB at most of {LIMIT} ({limited})"
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _drop(stage: Stage, places: list[tuple[str, int]]) -> dict[str, int]:
    """Send the bombs; what each weighs."""
    weights = {}
    producer = AIOKafkaProducer(**stage.settings.kafka_client(), max_request_size=4 * MIB)
    await producer.start()
    try:
        for codec, partition in places:
            bomb = await asyncio.to_thread(Bomb, codec, SIZES[codec])
            weights[codec] = bomb.weight
            sent = await producer.send_batch(bomb, stage.settings.topic_prefix + EVENTS.name, partition=partition)
            await sent
    finally:
        await producer.stop()
    return weights


@contextlib.contextmanager
def _memory_limit() -> Iterator[Path | None]:
    """A control group for LIMIT MiB; None where there is none to be had."""
    group = _GROUPS / f"tocsin-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT * MIB))
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()
