"""The origins of dead letters that were sent once more: remembered one by one, so that each is counted once."""

from __future__ import annotations

import heapq
import struct
from typing import Final, Literal

from schemas.dead_letter import DeadReason
from schemas.time import MICROS
from streams.kernel.columns import Redriven

KEEP: Final = 14 * 86_400 * MICROS
"""How long after its append an origin may be redriven, and is remembered: as long as events and dead letters are kept."""
MAX_REDRIVEN: Final = 10_000
REDRIVEN: Final = b"r"
"""First byte of the keys of the table."""
_KEY: Final = struct.Struct(">cQ")
_VALUE: Final = struct.Struct(">q")

Admission = Literal["new", "seen"] | DeadReason


class RedrivenOrigins:
    """Offsets of this partition whose records were dead letters and have been redriven, each with its append time.

    An origin is refused once it is older than KEEP, and only then forgotten, so no origin is ever taken twice.
    """

    def __init__(self, limit: int = MAX_REDRIVEN) -> None:
        self._limit = limit
        self._held: dict[int, int] = {}
        self._oldest: list[tuple[int, int]] = []
        self._dirty: dict[int, int | None] = {}

    def admit(self, origin: Redriven, stream_time: int) -> Admission:
        """Whether a record with this origin counts; one that does is remembered."""
        self.forget(stream_time)
        if origin.append_time <= stream_time - KEEP:
            return DeadReason.EXPIRED
        if origin.offset in self._held:
            return "seen"
        if len(self._held) >= self._limit:
            return DeadReason.OVERFLOW
        self._hold(origin.offset, origin.append_time)
        self._dirty[origin.offset] = origin.append_time
        return "new"

    def forget(self, stream_time: int) -> None:
        """Forget what would be refused by its age."""
        while self._oldest and self._oldest[0][0] <= stream_time - KEEP:
            _, offset = heapq.heappop(self._oldest)
            del self._held[offset]
            self._dirty[offset] = None

    def _hold(self, offset: int, append_time: int) -> None:
        self._held[offset] = append_time
        heapq.heappush(self._oldest, (append_time, offset))

    @property
    def dirty(self) -> int:
        """How many keys changed since the last `take_dirty`."""
        return len(self._dirty)

    def take_dirty(self) -> list[tuple[bytes, bytes | None]]:
        """Every key that changed since the last call with its value (None: gone)."""
        dirty, self._dirty = self._dirty, {}
        return [(_KEY.pack(REDRIVEN, offset), None if at is None else _VALUE.pack(at)) for offset, at in dirty.items()]

    def restore(self, key: bytes, value: bytes) -> None:
        """Take in an item of the table."""
        self._hold(_KEY.unpack(key)[1], _VALUE.unpack(value)[0])
