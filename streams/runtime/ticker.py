"""Ticks: the owner of a partition appends one when nothing else was appended for a second, so that silence moves time too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from schemas.control import HEADER, Tick
from streams.records import Outgoing
from streams.topics import EVENTS

IDLE: Final = 1.0
"""Seconds without a record after which a partition gets a tick."""
EVERY: Final = 0.2
_TICK: Final = Tick().model_dump_json().encode()


class Ticker:
    """Appends ticks to idle partitions; `clock` gives seconds."""

    def __init__(self, send: Callable[[Outgoing], Awaitable[object]], clock: Callable[[], float]) -> None:
        self._send, self._clock = send, clock
        self._seen: dict[int, tuple[int, float]] = {}

    async def look(self, applied: Mapping[int, int], lag: Mapping[int, int]) -> int:
        """Append a tick to every partition of `applied` (last folded offset) that is idle and has no lag. Returns how many.

        Ticks queue behind a backlog: an engine that lags reports no silence that is none.
        """
        now = self._clock()
        self._seen = {partition: seen for partition, seen in self._seen.items() if partition in applied}
        due = [
            partition
            for partition, offset in applied.items()
            if self._is_idle(partition, offset, now) and lag.get(partition) == 0
        ]
        for partition in due:
            self._seen[partition] = applied[partition], now
            await self._send(tick(partition))
        return len(due)

    def _is_idle(self, partition: int, offset: int, now: float) -> bool:
        before, since = self._seen.get(partition, (None, now))
        if before != offset:
            self._seen[partition] = offset, now
            return False
        return now - since >= IDLE


def tick(partition: int) -> Outgoing:
    """A tick for `partition` of the event topic."""
    return Outgoing(EVENTS.name, None, b"", ((HEADER, _TICK),), partition)
