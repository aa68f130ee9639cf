"""A rolling restart with two releases at work; then a release whose state is newer, after which the older one is refused."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.command import ROOT
from tests.faults.row import Row
from tests.faults.stage import FaultError, Servers, Stage, Worker, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "upgrade"
COPIED: Final = ("schemas", "streams")
COMMAND: Final = (sys.executable, "-P", "-c", "from streams.cli import main; main()", "run")
"""With -P the folder that it is run in is not looked at, so PYTHONPATH says whose code it is."""
SAME_STATE: Final = {
    "streams/runtime/worker.py": (r'log\.info\("settings: ', 'log.info("other release, settings: '),
    "streams/runtime/checkpoint.py": (r"^MAX_STEP: Final = .*$", "MAX_STEP: Final = 300"),
    "streams/runtime/partitions.py": (r"^CHECKPOINT_EVERY: Final = .*$", "CHECKPOINT_EVERY: Final = 0.4"),
}
"""A release that reads and writes the same state, at other moments."""
NEWER_STATE: Final = {
    "streams/runtime/worker.py": (r'log\.info\("settings: ', 'log.info("newer release, settings: '),
    "streams/kernel/state_version.py": (r"if found not in readable:", "if found not in range(1, 100):"),
    "streams/kernel/partition.py": (r"^VERSION: Final = .*$", "VERSION: Final = 98"),
    "streams/notifier/state.py": (r"^VERSION: Final = .*$", "VERSION: Final = 99"),
}
"""A release that reads the state of this one and writes its own."""


def release(stage: Stage, name: str, edits: Mapping[str, tuple[str, str]]) -> Worker:
    """A worker that runs a copy of the code, in which each pattern was replaced once."""
    code = stage.folder / f"code-{name}"
    for folder in COPIED:
        shutil.copytree(ROOT / folder, code / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file, (pattern, new) in edits.items():
        text, number = re.subn(pattern, new, (code / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
        if number != 1:
            raise FaultError(f"{file} holds {pattern!r} {number} times")
        (code / file).write_text(text, encoding="utf-8")
    worker = stage.worker(name, command=COMMAND, instance=name)
    worker.variables["PYTHONPATH"] = str(code)
    return worker


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Six restarts in turn, one in the short form, half of them by kill -9; then the newer state, and its refusal."""
    restarts = 6 if long else 1
    dice = random.Random(seed)
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        this = stage.worker("this", instance="this")
        workers = [this, release(stage, "other", SAME_STATE)]
        newer = release(stage, "newer", NEWER_STATE)
        async with stage.load() as load:
            await load.burst(1_000, 10)
            for worker in workers:
                worker.start()
            await workers[1].ready()
            steady = asyncio.create_task(load.run(110.0, 300.0))
            for number in range(restarts):
                await asyncio.sleep(dice.uniform(0.2, 1.5))
                await _restart(workers[number % 2], kills=dice.random() < 0.5)
            for worker in workers:
                await worker.stop()
            newer.start()
            await newer.ready()
            await asyncio.sleep(1.5)
            await newer.stop()
            await _refused(this)
            newer.start()
            await newer.ready()
            await load.end(steady)
            await settled(stage)
        await newer.stop()
        found = await verdict(stage)
    for worker, said in ((workers[1], "other release"), (newer, "newer release")):
        if not worker.said(said):
            raise FaultError(f"{worker.log} is of the wrong release")
    differences = [f"there is a traceback in {each.log}" for each in stage.workers if each.said("Traceback")]
    injected = f"{restarts} restarts in turn of two releases, then one with newer state; going back is refused"
    return Row(FAULT, injected, found.compared(), (*found.differences, *differences))


async def _restart(worker: Worker, *, kills: bool) -> None:
    if kills:
        worker.kill()
    else:
        await worker.stop()
    worker.start()
    await worker.ready()


async def _refused(worker: Worker) -> None:
    """The older release ends with status 1, and says what reads this state."""
    worker.start()
    status = await worker.ended()
    last = [line for line in worker.log.read_text().splitlines() if "the worker ends: " in line]
    if status != 1 or len(last) != 1 or not re.search(r"'s state has version 9[89], .*run the release that wrote it", last[0]):
        raise FaultError(f"status {status}, {last}; see {worker.log}")
