"""The watchdog: a worker that has records to fold and folds none must end, so that its supervisor starts it anew.

It blames the worker alone. Brokers or a Redis that are away, a rebalance and a recovery are no progress either, and a restart
mends none of them: who looks leaves such partitions out.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

LIMIT: Final = 60.0
"""Seconds without progress."""
EVERY: Final = 5.0
BEAT: Final = 1.0
"""Seconds between two signs of life of the event loop."""


class StuckError(RuntimeError):
    """A partition has lag and makes no progress."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a partition stands. `position`: anything that changes with progress. `lag`: records to do, at least."""

    position: object
    lag: int


class Watchdog:
    """Told every `every` seconds how partitions stand; says which has stood still for too long. `clock` gives seconds.

    A look that comes late counts as one that came in time: a process that was suspended has had no chance.
    """

    def __init__(self, clock: Callable[[], float], limit: float = LIMIT, every: float = EVERY) -> None:
        self._clock, self._limit, self._every = clock, limit, every
        self._looked, self._awake = clock(), 0.0
        self._moved: dict[str, tuple[object, float]] = {}

    def look(self, standings: Mapping[str, Standing]) -> str | None:
        """None, or the message about the first partition that is stuck. One that is missing from `standings` is forgotten."""
        now = self._clock()
        self._awake += min(now - self._looked, 2 * self._every)
        self._looked = now
        self._moved = {name: moved for name, moved in self._moved.items() if name in standings}
        for name, standing in standings.items():
            before, since = self._moved.get(name, (None, self._awake))
            if name not in self._moved or standing.lag <= 0 or standing.position != before:
                self._moved[name] = standing.position, self._awake
            elif self._awake - since >= self._limit:
                return f"{name} is {standing.lag} records behind and has made no progress for {self._awake - since:.0f} s"
        return None


class Pulse:
    """Ends the process, with the stacks of its threads on standard error, when the event loop makes no turn for `limit` s.

    A thread counts, since a loop that is stuck cannot look at itself. It counts its own rounds and not the clock: a process that
    was suspended is not blamed.
    """

    def __init__(self, limit: float = LIMIT, beat: float = BEAT, end: Callable[[int], None] = os._exit) -> None:
        self._rounds, self._beat, self._end = max(1, round(limit / beat)), beat, end
        self._missed = 0
        self._over = threading.Event()

    async def run(self) -> None:
        """Show that the loop lives, for ever."""
        thread = threading.Thread(target=self._listen, name="tocsin-pulse", daemon=True)
        thread.start()
        try:
            while True:
                self._missed = 0
                await asyncio.sleep(self._beat)
        finally:
            self._over.set()

    def _listen(self) -> None:
        while not self._over.wait(self._beat):
            self._missed += 1
            if self._missed > self._rounds:
                # Not the log: the loop may be stuck while it holds the lock of a handler.
                said = f"the worker ends: its event loop made no turn for {self._rounds * self._beat:.0f} s\n"
                os.write(sys.stderr.fileno(), said.encode())
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._end(1)
                return
