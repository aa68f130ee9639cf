"""Stand-ins for Kafka and RocksDB that remember what happened, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streams.records import Incoming, Outgoing
from streams.runtime.producer import Items


class Record(NamedTuple):
    offset: int
    key: bytes | None = b"k"
    value: bytes | None = b"1"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 1_767_225_600_000


def records(first: int, last: int, key: bytes = b"k") -> list[Incoming]:
    return [Record(offset, key) for offset in range(first, last + 1)]


class World:
    """A changelog, a table and an outbox. `said` lists what happened; set `broken` to make a step fail."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.log: list[tuple[bytes, bytes | None]] = []
        self.held: dict[bytes, bytes] = {}
        self.offset: int | None = None
        self.sent: list[Outgoing] = []
        self.markers: list[int] = []
        self.broken = ""
        self.acks: list[asyncio.Future[Any]] = []
        self.acknowledges = True
        self.aside: list[object] = []
        self.claims: list[list[int]] = []

    def _step(self, name: str, detail: str = "") -> None:
        if self.broken == name:
            raise RuntimeError(f"{name} is broken")
        self.said.append(f"{name}{detail}")

    async def append(self, partition: int, items: Items) -> int:
        await asyncio.sleep(0)
        self._step("append", f" {partition}")
        self.log += items
        return len(self.log) - 1

    def commit_batch(self, partition: int, items: Items, changelog_offset: int) -> None:
        self._step("table")
        for key, value in items:
            if value is None:
                self.held.pop(key, None)
            else:
                self.held[key] = value
        self.offset = changelog_offset

    async def send_all(self, outgoing: Sequence[Outgoing]) -> list[asyncio.Future[Any]]:
        return [self._send(each) for each in outgoing]

    def _send(self, outgoing: Outgoing) -> asyncio.Future[Any]:
        self._step("send")
        self.sent.append(outgoing)
        ack: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.acks.append(ack)
        if self.acknowledges:
            ack.set_result(None)
        return ack

    def saved(self, partition: int, marker: int, size: int, seconds: float) -> None:
        self._step("saved")
        self.markers.append(marker)

    # What taking over needs.

    async def claim(self, partitions: Iterable[int]) -> dict[int, int]:
        self._step("claim")
        self.claims.append(list(partitions))
        return dict.fromkeys(partitions, len(self.log) - 1)

    async def recover(self, partitions: Sequence[int]) -> dict[int, int]:
        self._step("recover")
        self.offset = len(self.log) - 1
        return dict.fromkeys(partitions, len(self.log))

    def changelog_offset(self, partition: int) -> int | None:
        return self.offset

    def items_of(self, partition: int) -> list[tuple[bytes, bytes]]:
        self._step("restore")
        return list(self.held.items())

    def unfinished(self, partition: int) -> tuple[Items, int] | None:
        return None
