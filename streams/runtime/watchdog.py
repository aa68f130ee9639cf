"""The watchdog: a worker that has records to fold and folds none must end, so that its supervisor starts it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

LIMIT: Final = 60.0
"""Seconds without progress."""
EVERY: Final = 5.0


class StuckError(RuntimeError):
    """A partition has lag and makes no progress."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a partition stands. `position`: anything that changes with progress. `lag`: records to do, at least."""

    position: object
    lag: int


class Watchdog:
    """Told now and then how partitions stand; says which has stood still for too long. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float], limit: float = LIMIT) -> None:
        self._clock, self._limit = clock, limit
        self._moved: dict[str, tuple[object, float]] = {}

    def look(self, standings: Mapping[str, Standing]) -> str | None:
        """None, or the message about the first partition that is stuck. One that is missing from `standings` is forgotten."""
        now = self._clock()
        self._moved = {name: moved for name, moved in self._moved.items() if name in standings}
        for name, standing in standings.items():
            before, since = self._moved.get(name, (None, now))
            if name not in self._moved or standing.lag <= 0 or standing.position != before:
                self._moved[name] = standing.position, now
            elif now - since >= self._limit:
                return f"{name} is {standing.lag} records behind and has made no progress for {now - since:.0f} s"
        return None
