"""Batches of records as brokers send them, version 2 of the format, read without an object for each record."""

from __future__ import annotations

import logging
import struct
from typing import Any, Final, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from streams.fetched import DamagedBatchError, Fetched, joined, split, undecodable
from streams.kernel.columns import Int
from streams.runtime import codecs

log = logging.getLogger("tocsin.runtime")

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_PREFIX: Final = 12
_CHECKED_FROM: Final = 21
_MAGIC: Final = 2
_CODEC, _APPEND_TIME, _CONTROL = 0x07, 0x08, 0x20
MAX_AT_ONCE: Final = codecs.MAX_BATCH
"""Bytes, decompressed, after which the batches that came as well are left for the next time."""


class KeptRecords(MemoryRecords):  # type: ignore[misc]
    """What the client makes of a fetched partition, with the bytes that it was made of."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class Header(NamedTuple):
    """The header of a batch, field by field."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int


def install() -> None:
    """Let the client keep the bytes of what it fetches, and cap what it decompresses itself."""
    module: Any = fetcher
    module.MemoryRecords = KeptRecords
    codecs.install()


def read_batches(data: bytes, place: TopicPartition, first: int, *, check: bool) -> tuple[Fetched, int]:
    """The records in `data` from offset `first` on, and the offset after the last batch.

    A batch that cannot be decompressed, or that does not hold what its header says, stands there as one empty record.
    Raises CorruptRecordException where a checksum is wrong.
    """
    unreadable: list[int] = []
    tables: list[Int] = []
    memory, view = codecs.MEMORY, memoryview(data)
    at = size = 0
    following, kind = first, 1
    while at + _HEADER.size <= len(data):
        header = Header._make(_HEADER.unpack_from(data, at))
        begin, at = at, at + _PREFIX + header.length
        if at > len(data):
            break  # the rest of it comes with the next fetch
        if header.magic != _MAGIC:
            raise CorruptRecordException(f"{place} holds a batch of version {header.magic}; only {_MAGIC} is read")
        if check and calc_crc32c(view[begin + _CHECKED_FROM : at]) != header.crc:
            raise CorruptRecordException(f"Invalid CRC - {place}")
        last = header.base_offset + header.last_delta
        if size > MAX_AT_ONCE:
            break  # what is left is fetched again
        following = max(following, last + 1)  # compaction may have removed the last records of a batch
        if header.attributes & _CONTROL or last < first:
            continue
        found = _records_of(view[begin + _HEADER.size : at], header, place, size)
        if found is None:
            unreadable.append(last)
        length, table = found or (0, undecodable(last, header.max_timestamp))
        if header.base_offset < first:
            table = table[:, table[0].searchsorted(first) :]
        tables.append(table)
        size += length
        kind = int(header.attributes & _APPEND_TIME != 0)
    return joined(memory.take(size), tables, kind, unreadable), following


def _records_of(payload: memoryview, header: Header, place: TopicPartition, at: int) -> tuple[int, Int] | None:
    """Decompress to `at` in the memory: the size, and where the records stand."""
    fixed = header.attributes & _APPEND_TIME != 0
    time = header.max_timestamp if fixed else header.base_timestamp
    try:
        size = codecs.MEMORY.add(header.attributes & _CODEC, payload, at)
        return size, split(codecs.MEMORY.view[: at + size], header.records, header.base_offset, time, at, fixed=fixed)
    except Exception as error:  # noqa: BLE001 - each codec raises what it likes, and no batch may stop the partition
        last = header.base_offset + header.last_delta
        what = "is damaged" if isinstance(error, DamagedBatchError) else "cannot be decompressed"
        log.error(
            "%s[%d]: the batch at offsets %d to %d %s and is left out: %s",
            place.topic, place.partition, header.base_offset, last, what, error,
        )  # fmt: skip
        return None
