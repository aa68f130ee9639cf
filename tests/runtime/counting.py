"""A tiny fold: how many records came with each key, and their sum."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable, Sequence

from streams.records import Incoming, Outgoing
from streams.topics import TRANSITIONS

_CELL = struct.Struct("<qq")
_MARKER = struct.Struct("<q")


class CountingFold:
    """Counts records and adds up their values (decimal text), by key; every hundredth of a key sends its count."""

    def __init__(self, items: Iterable[tuple[bytes, bytes]] = (), topic: str = TRANSITIONS.name) -> None:
        held = dict(items)
        self.topic = topic
        self.applied: int = _MARKER.unpack(held.pop(b"m"))[0] if b"m" in held else -1
        self.cells = {key: _CELL.unpack(value) for key, value in held.items()}
        self._dirty: set[bytes] = set()

    @property
    def dirty_bytes(self) -> int:
        return 60 * len(self._dirty)

    async def process(self, records: Sequence[Incoming]) -> Sequence[Outgoing]:
        out = []
        for record in records:
            assert record.offset > self.applied
            if not record.headers:
                key = record.key or b""
                count, total = self.cells.get(key, (0, 0))
                self.cells[key] = count + 1, total + int(record.value or b"0")
                self._dirty.add(key)
                if (count + 1) % 100 == 0:
                    out.append(Outgoing(self.topic, key, b"%d" % (count + 1)))
            self.applied = record.offset
        return out

    async def wake(self, now: int) -> Sequence[Outgoing]:
        return ()

    def take_dirty(self) -> list[tuple[bytes, bytes | None]]:
        dirty, self._dirty = self._dirty, set()
        return [*((key, _CELL.pack(*self.cells[key])) for key in sorted(dirty)), (b"m", _MARKER.pack(self.applied))]


async def restore(_partition: int, items: Iterable[tuple[bytes, bytes]], _abandoned: asyncio.Event) -> CountingFold:
    return CountingFold(items)
