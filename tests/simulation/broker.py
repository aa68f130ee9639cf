"""A broker in memory: partitions, offsets, append times, idempotent producers, epochs, compaction."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka.errors import ProducerFenced

from schemas.dead_letter import Headers
from streams.partitioner import murmur2
from streams.testing import START

Place = tuple[str, int]


class Record(NamedTuple):
    """A record of a partition. `timestamp`, in milliseconds, is when it was appended."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class New(NamedTuple):
    """A record to be appended."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Sequenced(NamedTuple):
    """Who appends a batch: an idempotent producer, its epoch, and the number of the batch."""

    producer: int
    epoch: int
    number: int


@dataclass
class Log:
    """One partition. `producers`: epoch, number and base offset of the last batch of each."""

    records: list[Record] = field(default_factory=list)
    end: int = 0
    producers: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def read(self, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on."""
        found = self.records
        low, high = 0, len(found)
        while low < high:
            middle = (low + high) // 2
            if found[middle].offset < offset:
                low = middle + 1
            else:
                high = middle
        return found[low : low + limit]

    def compact(self, upto: int) -> None:
        """Keep, below the offset `upto`, the last record of each key. Tombstones outlive every test."""
        last = {record.key: record.offset for record in self.records if record.offset < upto}
        self.records = [record for record in self.records if record.offset >= upto or last[record.key] == record.offset]


class Broker:
    """All partitions, and the coordinator of producer ids."""

    def __init__(self, clock: Callable[[], float], partitions: dict[str, int]) -> None:
        self._clock, self.partitions = clock, partitions
        self.logs: dict[Place, Log] = defaultdict(Log)
        self._fences: dict[str, tuple[int, int]] = {}
        self._producers = 0
        self._changed = asyncio.Event()

    def init_producer(self, fence: str | None) -> tuple[int, int]:
        """A producer id and epoch. With a `fence`: the same id as before, and the next epoch."""
        if fence is None or fence not in self._fences:
            self._producers += 1
            found = self._producers, 0
        else:
            producer, epoch = self._fences[fence]
            found = producer, epoch + 1
        if fence is not None:
            self._fences[fence] = found
        return found

    def append(self, place: Place, batch: Sequence[New], by: Sequenced | None = None) -> int:
        """Append a batch, and return its first offset; a batch that came before is only found. Raises ProducerFenced.

        As with the real one, a partition learns of a new epoch by the first batch that carries it.
        """
        log = self.logs[place]
        base = log.end
        if by is not None:
            epoch, number, known = log.producers.get(by.producer, (by.epoch, -1, -1))
            if by.epoch < epoch:
                raise ProducerFenced
            if by.epoch == epoch and by.number <= number:
                return known
            log.producers[by.producer] = by.epoch, by.number, base
        now = START // 1000 + int(self._clock() * 1000)
        for record in batch:
            log.records.append(Record(place[1], log.end, now, *record))
            log.end += 1
        self.notify()
        return base

    def partition_of(self, topic: str, key: bytes | None) -> int:
        """Where a record goes by its key."""
        return (murmur2(key or b"") & 0x7FFFFFFF) % self.partitions[topic]

    def notify(self) -> None:
        """Wake who waits for something to happen."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Returns when something was appended, or a group changed."""
        await self._changed.wait()
