"""Producers whose clocks are wrong, a worker whose clock is wrong and jumps, and ticks from it: time is what the log says."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Final

from schemas.alert import Reason
from streams.topics import ALERTS
from tests.faults.load import Load
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import FaultError, Servers, open_stage
from tests.faults.verdict import settled, verdict

FAULT = "clocks"
AHEAD: Final = 240.0
BEHIND: Final = -600.0
HOUR: Final = 3600
_LIBRARIES: Final = (
    Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"),
    Path("/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"),
)


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """The worker's clock is an hour ahead, then an hour behind, then right; every tenth event comes from a wrong clock.

    The log alone decides, so what the oracle makes of it, which knows no clock, must be what the worker said.
    """
    seconds, rate = (12.0, 400.0) if long else (2.5, 300.0)
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        worker = stage.worker("a", instance="a")
        shift = folder / "shift"
        _set(shift, "+0")
        worker.variables = _faked(shift)
        worker.start()
        async with stage.load() as load:
            await worker.ready()
            for offset in (f"+{HOUR}", f"-{HOUR}", "+0"):
                _set(shift, offset)
                await asyncio.gather(load.run(seconds, rate), _wrong(load, seconds, rate / 10))
                await asyncio.sleep(1.5)  # so long that there are ticks
            await load.flush()
            await settled(stage)
        await worker.stop()
        found = await verdict(stage)
        alerts = await read_topic(stage.settings, stage.settings.topic_prefix + ALERTS.name)
    # No event is old when it is decided, but to a worker whose clock is an hour ahead.
    stale = any(json.loads(alert.value or b"")["reason"] == Reason.STALE for alert in alerts)
    differences = list(found.differences)
    if not stale:
        differences.append("the clock of the worker was not wrong")
    injected = "producers 4 min ahead and 10 min behind; the worker's clock jumps an hour ahead, two back, and one ahead"
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _wrong(load: Load, seconds: float, rate: float) -> None:
    """Events from two producers with wrong clocks."""
    for number in range(int(seconds * rate)):
        await load.send(time.time() + (AHEAD if number % 2 else BEHIND))
        await asyncio.sleep(1 / rate)


def _set(shift: Path, offset: str) -> None:
    beside = shift.with_suffix(".new")
    beside.write_text(offset)
    beside.replace(shift)


def _faked(shift: Path) -> dict[str, str]:
    """What makes a process take its time of day from `shift`. Raises FaultError where libfaketime is missing."""
    library = next((path for path in _LIBRARIES if path.exists()), None)
    if library is None:
        raise FaultError("libfaketime is missing: apt-get install faketime")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(shift),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
