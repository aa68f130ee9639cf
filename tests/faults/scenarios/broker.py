"""Brokers frozen, killed and started again, out of room, and three of them that take turns in failing; the worker stays.

A worker that ends, or that needs more memory the longer the brokers are away, is a difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, cast

from tests.faults.row import Row
from tests.faults.stage import Servers, Stage, Worker, open_stage
from tests.faults.verdict import Verdict, settled, verdict
from tests.servers.kafka import KafkaCluster, KafkaServer

FAULT = "broker"
GROWTH: Final = 64 << 10
"""KiB that the worker may take while brokers are away: two batches for each partition that it writes to, and what was fetched."""
RATE: Final = 400.0
SMALL: Final = 48
"""MiB of the disk that runs full."""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """A broker frozen for a while, then killed and started again; in the long form also out of room, and a cluster of three."""
    dice = random.Random(seed)
    frozen = 10.0 if long else 3.0
    parts = [(f"frozen {frozen:.0f} s, killed and started again", await _one(servers, seed, folder / "one", frozen, dice))]
    if long:
        parts.append(("disk of the broker full", await _full(servers, seed + 1, folder / "full")))
        parts.append(("3 brokers, each killed once and leaders moved", await _three(servers, seed + 2, folder / "three", dice)))
    differences = [f"{name}: {each}" for name, (_, found) in parts for each in found]
    grown = max(growth for _, ((growth, _), _) in parts)
    events = " + ".join(f"{found.compared()}" for _, ((_, found), _) in parts)
    return Row(FAULT, "; ".join(name for name, _ in parts) + f"; worker +{grown >> 10} MiB at most", events, tuple(differences))


Found = tuple[tuple[int, Verdict], tuple[str, ...]]


async def _one(servers: Servers, seed: int, folder: Path, frozen: float, dice: random.Random) -> Found:
    with open_stage(servers, folder, seed, own_kafka=True) as stage:

        async def harm() -> None:
            stage.kafka.pause()
            await asyncio.sleep(frozen)
            stage.kafka.resume()
            await asyncio.sleep(dice.uniform(0.5, 1.5))
            stage.kafka.kill()
            await asyncio.to_thread(stage.kafka.start)

        return await _survives(stage, harm)


async def _full(servers: Servers, seed: int, folder: Path) -> Found:
    with _small_disk(folder / "kafka"), open_stage(servers, folder, seed, own_kafka=True) as stage:
        rest = folder / "kafka" / "rest"

        async def harm() -> None:
            # The broker ends by itself when it cannot write its log, and is started again once there is room.
            with contextlib.suppress(OSError), rest.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            async with asyncio.timeout(30):
                while stage.kafka.is_running:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(3)
            rest.unlink()
            await asyncio.to_thread(stage.kafka.start)

        return await _survives(stage, harm)


async def _three(servers: Servers, seed: int, folder: Path, dice: random.Random) -> Found:
    cluster = KafkaCluster(folder / "cluster")
    try:
        await asyncio.to_thread(cluster.start)
        mine = Servers(folder, kafka=cast(KafkaServer, cluster), redis=servers.redis)
        with open_stage(mine, folder, seed) as stage:

            async def harm() -> None:
                for node in dice.sample(list(cluster.nodes.values()), len(cluster.nodes)):
                    node.kill()
                    await asyncio.sleep(dice.uniform(2, 4))
                    await asyncio.to_thread(node.start)
                    await asyncio.sleep(6)  # until it is in sync once more: two that are not are one too many

            return await _survives(stage, harm)
    finally:
        cluster.kill()


async def _survives(stage: Stage, harm: Callable[[], Awaitable[None]]) -> Found:
    """Work under load while `harm` is done. The growth of the worker in KiB, the verdict, and all that is wrong."""
    stage.prepare()
    worker = stage.worker("a", instance="a")
    async with stage.load() as load:
        worker.start()
        await worker.ready()
        steady = asyncio.create_task(load.run(600, RATE))
        await asyncio.sleep(1.5)
        async with _memory(worker) as memory:
            await harm()
            await asyncio.sleep(1)
        await load.end(steady)
        await settled(stage)
    wrong = []
    status = await worker.stop() if worker.is_running else worker.process and worker.process.returncode
    if status != 0:
        wrong.append(f"the worker ended with status {status}")
    growth = max(memory) - memory[0]
    if growth > GROWTH:
        wrong.append(f"the worker took {growth >> 10} MiB more while brokers were away")
    found = await verdict(stage)
    return (growth, found), (*found.differences, *wrong)


@contextlib.asynccontextmanager
async def _memory(worker: Worker) -> AsyncIterator[list[int]]:
    """Resident KiB of a worker, looked at again and again."""
    seen = [_resident(worker.pid)]

    async def look() -> None:
        while worker.is_running:
            seen.append(_resident(worker.pid))
            await asyncio.sleep(0.2)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


def _resident(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) if "VmRSS:" in text else 0


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A disk of SMALL MiB at `folder`. Needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}m", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
