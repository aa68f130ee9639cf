"""Local state that is damaged, gone, read-only or without room, under a steady load: rebuilt, or a clear stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.faults.row import Row
from tests.faults.stage import FaultError, Servers, Worker, open_stage, until
from tests.faults.verdict import settled, verdict

FAULT = "disk"
REBUILT: Final = "local table put aside as"
STOPPED: Final = ("cannot be used: ", "no local state can be kept in ")


def truncate(path: Path, part: float) -> None:
    """Cut the end of a file off."""
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * part))


def overwrite(path: Path) -> None:
    """Put nonsense into a file."""
    path.write_bytes(b"\xff" * 512)


def delete(folder: Path, pattern: str) -> None:
    """Delete the files of that pattern."""
    for file in folder.glob(pattern):
        file.unlink()


DAMAGE: Final[dict[str, Callable[[Path], None]]] = {
    "SST truncated": lambda table: truncate(min(table.glob("*.sst")), 0.5),
    "SST gone": lambda table: delete(table, "*.sst"),
    "CURRENT deleted": lambda table: delete(table, "CURRENT"),
    "MANIFEST without its end": lambda table: truncate(next(table.glob("MANIFEST-*")), 0.8),
    "MANIFEST of nonsense": lambda table: overwrite(next(table.glob("MANIFEST-*"))),
    "table folder gone": shutil.rmtree,
    "write-ahead log gone": lambda table: delete(table, "*.log"),
}
SEEN: Final = tuple(name for name in DAMAGE if name not in ("table folder gone", "write-ahead log gone"))
"""Damage that is told; what is merely older or gone is made up for from the changelog like any lag."""


def table(worker: Worker, partition: int) -> Path:
    """The engine's table of a partition."""
    return worker.data / "engine" / "v1" / "tables" / f"state-{partition}.db"


@contextlib.contextmanager
def small_disk(worker: Worker, kilobytes: int) -> Iterator[Path]:
    """The worker's folder on a disk of its own, empty at first, of that size."""
    shutil.rmtree(worker.data, ignore_errors=True)
    worker.data.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(worker.data))
    try:
        yield worker.data
    finally:
        worker.kill()
        subprocess.run(["umount", "-l", worker.data], check=True)


def mount(*arguments: str) -> None:
    """Mount, or mount otherwise."""
    subprocess.run(["mount", *arguments], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Leave so many bytes free."""
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(max(free - leave, 0)))


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Damage of every kind, on each partition another, twice in the long form; then disks that refuse."""
    dice = random.Random(seed)
    injected: list[str] = []
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        worker = stage.worker("a", instance="a")
        async with stage.load() as load:
            await load.burst(1_000, 10)
            worker.start()
            await worker.ready()
            steady = asyncio.create_task(load.run(110.0, 300.0))
            damages = [name for _ in range(2 if long else 1) for name in dice.sample(tuple(DAMAGE), len(DAMAGE))]
            if not long:
                damages = dice.sample(SEEN, stage.partitions)
            for at in range(0, len(damages), stage.partitions):
                await asyncio.sleep(1.2)
                await worker.stop()  # which writes the tables out
                chosen = damages[at : at + stage.partitions]
                await _damaged(worker, chosen)
                injected += chosen
            if os.geteuid() == 0:
                injected += await _refusing_disk(worker, long=long)
                worker.start()
                await worker.ready()
            await load.end(steady)
            await settled(stage)
        await worker.stop()
        found = await verdict(stage)
        told = [f"there is a traceback in {worker.log}"] if worker.said("Traceback") else []
    counts = {name: injected.count(name) for name in dict.fromkeys(injected)}
    text = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in counts.items())
    return Row(FAULT, text, found.compared(), (*found.differences, *told))


async def _damaged(worker: Worker, damages: list[str]) -> None:
    """Damage a table for each, and start the worker on them."""
    before = worker.log.read_text().count(REBUILT)
    for partition, name in enumerate(damages):
        DAMAGE[name](table(worker, partition))
    worker.start()
    await worker.ready()
    told = worker.log.read_text().count(REBUILT) - before
    if told != sum(name in SEEN for name in damages):
        raise FaultError(f"{told} tables were put aside after {damages}; see {worker.log}")
    piled = [path.name.partition(".broken-")[0] for path in worker.data.glob("engine/v1/tables/*.broken-*")]
    if len(piled) > len(set(piled)):
        raise FaultError(f"tables that were put aside pile up: {sorted(piled)}")


async def _refusing_disk(worker: Worker, *, long: bool) -> list[str]:
    """Disks that take nothing: the worker ends with status 1, and says which path and what to do."""
    worker.kill()
    injected = []
    if long:
        injected.append("read-only at the start")
        with small_disk(worker, 8_192) as disk:
            mount("-o", "remount,ro", str(disk))
            await _stops(worker)
    with small_disk(worker, 8_192) as disk:
        injected.append("full at a checkpoint")
        worker.start()
        await worker.ready()
        began = len(_lines(worker))
        fill(disk)
        await _stopped(worker, began)
        if long:
            injected += ["full at the start", "full in recovery"]
            await _stops(worker)
            (disk / "filler").unlink()
            shutil.rmtree(disk / "engine")
            fill(disk, leave=150_000)
            await _stops(worker)
    return injected


async def _stops(worker: Worker) -> None:
    lines = _lines(worker)
    worker.start()
    await _stopped(worker, len(lines))


async def _stopped(worker: Worker, began: int) -> None:
    """It ends, and all that it says of it after line `began` of its log is what is refused, where."""
    await until(lambda: not worker.is_running, f"{worker.log} to say that its disk takes nothing")
    status = await worker.ended()
    last = [line for line in _lines(worker)[began:] if "the worker ends: " in line]
    if status != 1 or len(last) != 1 or not any(text in last[0] and str(worker.data) in last[0] for text in STOPPED):
        raise FaultError(f"status {status}, {last}; see {worker.log}")


def _lines(worker: Worker) -> list[str]:
    return worker.log.read_text().splitlines() if worker.log.exists() else []
