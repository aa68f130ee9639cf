"""The records of one partition as they were fetched: columns over one buffer. A record is made only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from schemas.dead_letter import MAX_HEADER_COUNT, Headers
from streams import native
from streams.kernel.columns import Int
from streams.records import Incoming

Bytes = NDArray[np.uint8]

ABSENT: Final = -1
"""The size of a key or value that is null."""
_COLUMNS: Final = 7
"""Offset, time, key, its size, value, its size, headers: in the order of native/batch.zig."""
_SMALLEST: Final = 7
"""Bytes that the smallest record takes in a batch."""


class DamagedBatchError(ValueError):
    """A batch does not hold the records that its header promises."""


class FetchedRecord(NamedTuple):
    """A record of its own. `timestamp` is in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_type: int


@dataclass(frozen=True, slots=True)
class Fetched(Sequence[FetchedRecord]):
    """n records in offset order.

    `data` holds all their bytes. `offsets` and `timestamps` (ms) are int64[n]; `value_at`, `value_size`, `key_at` and
    `key_size` place value and key in `data`, sizes being ABSENT for null; `headers_at` is where the headers of a record are
    encoded, ABSENT where it has none.
    """

    data: bytes
    offsets: Int
    timestamps: Int
    key_at: Int
    key_size: Int
    value_at: Int
    value_size: Int
    headers_at: Int
    timestamp_type: int = 1
    held: dict[int, Headers] = field(default_factory=dict)
    """Headers that are not encoded in `data`, by place."""
    unreadable: tuple[int, ...] = ()
    """The offsets of the empty records that stand for batches of which nothing could be read."""

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, at: int) -> FetchedRecord: ...
    @overload
    def __getitem__(self, at: slice) -> Fetched: ...
    def __getitem__(self, at: int | slice) -> FetchedRecord | Fetched:
        if isinstance(at, slice):
            return self._part(at)
        at = range(len(self))[at]
        return FetchedRecord(
            int(self.offsets[at]),
            int(self.timestamps[at]),
            self._bytes(self.key_at[at], self.key_size[at]),
            self.value(at),
            self.headers(at),
            self.timestamp_type,
        )

    def __iter__(self) -> Iterator[FetchedRecord]:
        return self._made(range(len(self)), slice(None))

    def records(self, places: Sequence[int]) -> Iterator[FetchedRecord]:
        """The records at `places`: faster than one by one."""
        return self._made(places, np.asarray(places, dtype=np.int64))

    def _made(self, places: Iterable[int], at: slice | Int) -> Iterator[FetchedRecord]:
        columns = (self.offsets, self.timestamps, self.key_at, self.key_size, self.value_at, self.value_size, self.headers_at)
        data, kind, held = self.data, self.timestamp_type, self.held
        for place, row in zip(places, zip(*(column[at].tolist() for column in columns), strict=True), strict=True):
            offset, timestamp, key_at, key_size, value_at, value_size, headers_at = row
            yield FetchedRecord(
                offset,
                timestamp,
                None if key_size == ABSENT else data[key_at : key_at + key_size],
                None if value_size == ABSENT else data[value_at : value_at + value_size],
                self.headers(place) if held or headers_at != ABSENT else (),
                kind,
            )

    def values(self, places: Int) -> list[bytes]:
        """The values of the records at `places`, b"" for null."""
        data, starts, sizes = self.data, self.value_at[places].tolist(), self.value_size[places].tolist()
        return [data[start : start + max(size, 0)] for start, size in zip(starts, sizes, strict=True)]

    def _part(self, at: slice) -> Fetched:
        held = {place: self.held[old] for place, old in enumerate(range(len(self))[at]) if old in self.held} if self.held else {}
        return Fetched(
            self.data, self.offsets[at], self.timestamps[at], self.key_at[at], self.key_size[at], self.value_at[at],
            self.value_size[at], self.headers_at[at], self.timestamp_type, held, self.unreadable,
        )  # fmt: skip

    def value(self, at: int) -> bytes | None:
        """The value of the record at `at`."""
        return self._bytes(self.value_at[at], self.value_size[at])

    def headers(self, at: int) -> Headers:
        """The headers of the record at `at`."""
        if at in self.held:
            return self.held[at]
        place = int(self.headers_at[at])
        return () if place == ABSENT else _read_headers(self.data, place)

    def with_headers(self) -> list[int]:
        """The places of the records that have headers."""
        places = np.flatnonzero(self.headers_at != ABSENT).tolist()
        return sorted([*places, *self.held]) if self.held else places

    def _bytes(self, start: Any, size: Any) -> bytes | None:
        return None if size == ABSENT else self.data[int(start) : int(start) + int(size)]

    def after(self, offset: int) -> Fetched:
        """The records after `offset`."""
        return self[int(np.searchsorted(self.offsets, offset, side="right")) :]

    def up_to(self, offset: int) -> Fetched:
        """The records up to `offset`, with it."""
        return self[: int(np.searchsorted(self.offsets, offset, side="right"))]

    @classmethod
    def of(cls, records: Iterable[Incoming]) -> Fetched:
        """`records` as columns; those that were made one by one are copied."""
        if isinstance(records, Fetched):
            return records
        made = list(records)
        parts = [part or b"" for record in made for part in (record.key, record.value)]
        sizes = np.array([len(part) for part in parts], dtype=np.int64).reshape(-1, 2)
        starts = (np.cumsum(sizes) - sizes.ravel()).reshape(-1, 2)
        key_null = np.array([record.key is None for record in made], dtype=bool)
        value_null = np.array([record.value is None for record in made], dtype=bool)
        return cls(
            b"".join(parts),
            np.array([record.offset for record in made], dtype=np.int64),
            np.array([record.timestamp for record in made], dtype=np.int64),
            starts[:, 0],
            np.where(key_null, ABSENT, sizes[:, 0]),
            starts[:, 1],
            np.where(value_null, ABSENT, sizes[:, 1]),
            np.full(len(made), ABSENT, dtype=np.int64),
            held={at: tuple(record.headers) for at, record in enumerate(made) if record.headers},
        )


def split(data: bytes | memoryview, count: int, base_offset: int, time: int, at: int, *, fixed: bool) -> Int:
    """Where the `count` records of a decompressed batch stand, which is what `data` holds from `at` on: int64[7, count].

    `time` (ms) is that of all of them where it is `fixed`, else they count from it. Raises DamagedBatchError.
    """
    size = len(data) - at
    if count < 0 or count * _SMALLEST > size:
        raise DamagedBatchError(f"it has {size} bytes, and its header says {count} records")
    table = np.empty((_COLUMNS, count), dtype=np.int64)
    place = native.at(np.frombuffer(data, dtype=np.uint8), np.uint8)
    if not native.library.tocsin_split(place, len(data), at, native.at(table, np.int64), count, base_offset, time, fixed):
        raise DamagedBatchError(f"it does not hold the {count} records of its header")
    return table


def undecodable(offset: int, timestamp: int) -> Int:
    """A column that stands for a batch of which nothing can be read: an empty record, which becomes a dead letter."""
    return np.array([[offset], [timestamp], [0], [ABSENT], [0], [ABSENT], [ABSENT]], dtype=np.int64)


def joined(data: bytes, tables: Sequence[Int], timestamp_type: int, unreadable: Sequence[int] = ()) -> Fetched:
    """The records of the batches in `data`."""
    table = np.concatenate(tables, axis=1) if tables else np.empty((_COLUMNS, 0), dtype=np.int64)
    offsets, timestamps, key_at, key_size, value_at, value_size, headers_at = table
    return Fetched(
        data, offsets, timestamps, key_at, key_size, value_at, value_size, headers_at, timestamp_type,
        unreadable=tuple(unreadable),
    )  # fmt: skip


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The zigzag varint at `at`, which was found whole before, and where it ends."""
    shift = value = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _read_headers(data: bytes, at: int) -> Headers:
    """The headers at `at`; of those that are too many, one more than a dead letter keeps."""
    count, at = _varint(data, at)
    found: list[tuple[str, bytes]] = []
    for _ in range(min(count, MAX_HEADER_COUNT + 1)):
        size, at = _varint(data, at)
        name, at = data[at : at + size].decode("utf-8", "replace"), at + size
        size, at = _varint(data, at)
        value, at = data[at : at + max(size, 0)], at + max(size, 0)
        found.append((name, value))
    return tuple(found)
