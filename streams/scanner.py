"""Events from JSON without making an object of any: where each field of each event stands in the bytes.

It takes what it can vouch for by the strict rules of streams/wire.py, and leaves everything else to it: unknown fields,
escapes, times as text, exponents, numbers of many digits, and whatever is wrong. So what is an event, and what it says, is
decided there; this is how most of it is found out fast. What both take, they must read alike: tests/streams/test_scanner.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool

from schemas import event as contract
from schemas.event import MAX_NUMBER, MAX_TEXT, MAX_WEIGHT, Event
from schemas.time import MIN_EVENT_TIME
from streams import native
from streams.fetched import Bytes
from streams.kernel.columns import Bool, Float, Groups, Int, Text

Place = NDArray[np.int32]

# --- the fields of Event -------------------------------------------------------------------------------------------

_TEXT, _NAME, _WORDS, _BOOL, _INTEGER, _NUMBER, _ATTRIBUTES = range(7)
"""Kinds of values, in the order of native/event.zig."""


def _kind_of(name: str, annotation: Any) -> tuple[int, tuple[str, ...], int, int, bool]:
    """Kind, words, range, and whether null is allowed."""
    nullable = type(None) in get_args(annotation)
    bare = next(part for part in get_args(annotation) if part is not type(None)) if nullable else annotation
    ranges = {
        contract.Timestamp: (MIN_EVENT_TIME, MAX_NUMBER), contract.Integer: (-MAX_NUMBER, MAX_NUMBER),
        contract.Weight: (1, MAX_WEIGHT), contract.Version: (contract.VERSION, contract.VERSION),
    }  # fmt: skip
    for known, (lowest, highest) in ranges.items():
        if bare == known:
            return _INTEGER, (), lowest, highest, nullable
    if get_origin(bare) is Literal:
        return _WORDS, get_args(bare), 0, 0, nullable
    kinds: dict[Any, int] = {
        contract.Text: _TEXT,
        contract.Name: _NAME,
        contract.Number: _NUMBER,
        contract.Attributes: _ATTRIBUTES,
        StrictBool: _BOOL,
    }
    for known, kind in kinds.items():
        if bare == known:
            return kind, (), 0, 0, nullable
    raise TypeError(f"streams/scanner.py knows no kind for {annotation}, the type of field '{name}' of Event")


FIELDS: Final = tuple(Event.model_fields)
_PLACE: Final = {name: place for place, name in enumerate(FIELDS)}
_NAME_PLACES: Final = 1024
_MORE_COLUMNS: Final = 16


class _Layout:
    """The fields as machine code is told them, and what is learned of how they are written: which column holds which field."""

    def __init__(self) -> None:
        hints = get_type_hints(Event, include_extras=True)
        text = b""
        fields: list[tuple[int, ...]] = []
        words: list[tuple[int, int]] = []
        for name in FIELDS:
            kind, allowed, lowest, highest, nullable = _kind_of(name, hints[name])
            name_at, text = len(text), text + name.encode()
            first = len(words)
            for word in allowed:
                words.append((len(text), len(word)))
                text += word.encode()
            fields.append((name_at, len(name), kind, nullable, lowest, highest, first, len(words), 0, 0, 0))
        self.kinds: Final = [field[2] for field in fields]
        self.slot_of: Final = np.full(len(FIELDS), -1, dtype=np.int64)
        self.used = 0
        self._names: Final = np.frombuffer(text, dtype=np.uint8)
        self._fields: Final = np.array(fields, dtype=np.int64)
        self._words: Final = np.array(words, dtype=np.int64)
        self._by_name: Final = np.full(_NAME_PLACES, -1, dtype=np.int64)
        self._following: Final = np.zeros(len(FIELDS) + 1, dtype=np.int64)
        self.contract: Final = native.Contract(
            names=native.at(self._names, np.uint8), names_size=len(text),
            fields=native.at(self._fields, np.int64), field_count=len(fields),
            words=native.at(self._words, np.int64), word_count=len(words),
            by_name=native.at(self._by_name, np.int64), by_name_size=_NAME_PLACES,
            following=native.at(self._following, np.int64), slot_of=native.at(self.slot_of, np.int64), max_text=MAX_TEXT,
        )  # fmt: skip
        native.library.tocsin_contract(self.contract)

    def add(self, field: int) -> None:
        """Give `field` the next column."""
        self.slot_of[field] = self.used
        self.used += 1

    @property
    def width(self) -> int:
        """Columns to make room for."""
        return -(-(self.used + 1) // _MORE_COLUMNS) * _MORE_COLUMNS


_LAYOUT: Final = _Layout()

# --- scanning ------------------------------------------------------------------------------------------------------

_DONE, _NO_ROOM = -1, -2
_SEED: Final = secrets.randbits(64)
"""So that nobody can send texts that all fall into one place of a hash table."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """The events of the values that could be vouched for, n of them in order.

    `record` int64[n] is the place of each one's value, `index` int64[n] its place in the value's array. `doubtful` is bool for
    each value: True where its events are not among these. `starts` and `sizes`, int32[columns, n], place the fields in `data`.
    """

    data: Bytes
    record: Int
    index: Int
    doubtful: Bool
    starts: Place
    sizes: Place
    slot_of: Int

    def __len__(self) -> int:
        return len(self.record)

    def rows(self, at: Bool) -> Scanned:
        """Some of the events."""
        return Scanned(
            self.data, self.record[at], self.index[at], self.doubtful, self.starts[:, at], self.sizes[:, at], self.slot_of
        )  # fmt: skip

    def column(self, name: str) -> tuple[Place, Place] | None:
        """Where the values of a field begin, text without its quote, and their sizes, -1 where absent; None: in no event."""
        slot = int(self.slot_of[_PLACE[name]])
        return None if slot < 0 else (np.ascontiguousarray(self.starts[slot]), np.ascontiguousarray(self.sizes[slot]))

    def integers(self, name: str, absent: int) -> Int:
        """A field of integers."""
        found = np.full(len(self), absent, dtype=np.int64)
        column = self.column(name)
        if column is not None:
            native.library.tocsin_integers(self._placed(*column), native.at(found, np.int64))
        return found

    def numbers(self, name: str, *, attribute: bool) -> Float:
        """A field as doubles, NaN where it is absent or no number."""
        found = np.full(len(self), np.nan)
        column = self._column(name, attribute)
        if column is not None and (column.quoted is not None or _kind(name) > _WORDS):
            sizes = column.sizes if column.quoted is None else np.where(column.quoted, np.int32(-1), column.sizes)
            native.library.tocsin_numbers(self._placed(column.starts, sizes), native.at(found, np.float64))
        return found

    def strings(self, name: str, *, attribute: bool) -> Text | None:
        """A field as text; None for numbers that may be written in several ways."""
        column = self._column(name, attribute)
        codes = np.full(len(self), -1, dtype=np.int64)
        if column is None or not len(self):
            return Text(codes, [])
        if not self._is_text(column, name):
            return None
        table = native.hash_table(len(self))
        firsts = np.empty(len(self), dtype=np.int64)
        count = native.library.tocsin_intern(
            self._placed(column.starts, column.sizes), _SEED, native.at(table, np.int32), len(table),
            native.at(codes, np.int64), native.at(firsts, np.int64),
        )  # fmt: skip
        return Text(codes, self._texts(column, firsts[:count]))

    def partitions(self, tenant: str, partitions: int) -> Int:
        """The partition that each event belongs to; where an event names no tenant, `tenant` is meant."""
        found = np.empty(len(self), dtype=np.int64)
        first = self._part(self._column("tenant", attribute=False), tenant)
        last = self._part(self._column("service", attribute=False), "")
        native.library.tocsin_partitions(first, last, partitions, native.at(found, np.int64))
        return found

    def keys(self, parts: Sequence[tuple[str, bool, str]]) -> Groups | None:
        """The groups that fields divide the events into, each with whether it is an attribute, and the text where it is absent.

        None where one of them is a number that may be written in several ways.
        """
        found = [(self._column(name, attribute), name, absent) for name, attribute, absent in parts]
        if not all(self._is_text(column, name) for column, name, _ in found):
            return None
        rows = len(self)
        table = native.hash_table(rows)
        codes, firsts, ends = (np.empty(rows, dtype=np.int64) for _ in range(3))
        texts = sum(int(np.maximum(column.sizes, 0).sum()) for column, _, _ in found if column is not None)
        keys = np.empty(texts + rows * sum(4 + len(absent.encode()) for _, _, absent in found), dtype=np.uint8)
        made = [self._part(column, absent) for column, _, absent in found]
        columns = (native.Part * len(made))(*made)
        count = native.library.tocsin_keys(
            columns, len(columns), _SEED, native.at(table, np.int32), len(table), native.at(codes, np.int64),
            native.at(firsts, np.int64), native.at(keys, np.uint8), len(keys), native.at(ends, np.int64),
        )  # fmt: skip
        ends = ends[:count]
        return Groups(codes, keys[: ends[-1] if count else 0].tobytes(), ends)

    def _part(self, column: _Column | None, absent: str) -> native.Part:
        if column is None:
            nothing = np.full(len(self), -1, dtype=np.int32)
            column = _Column(nothing, nothing, None)
        text = absent.encode()
        part = native.Part(self._placed(column.starts, column.sizes), text, len(text))
        part.held = column  # while machine code reads what it places
        return part

    def _is_text(self, column: _Column | None, name: str) -> bool:
        """Whether a value is written in one way."""
        if column is None:
            return True
        return _kind(name) != _NUMBER if column.quoted is None else not (~column.quoted & (column.sizes >= 0)).any()

    def values(self, name: str, *, attribute: bool) -> list[Any]:
        """A field as str, bool, int or float, None where it is absent."""
        column = self._column(name, attribute)
        if column is None:
            return [None] * len(self)
        is_text = _kind(name) <= _WORDS if column.quoted is None else column.quoted
        of: Callable[[str], bool | int | float] = float if column.quoted is None and _kind(name) == _NUMBER else _scalar
        found: list[Any] = [None] * len(self)
        there = np.flatnonzero(column.sizes >= 0)
        plain = np.broadcast_to(is_text, len(self))[there].tolist()
        for row, text, known in zip(there.tolist(), self._texts(column, there), plain, strict=True):
            found[row] = text if known else of(text)
        return found

    def _column(self, name: str, attribute: bool) -> _Column | None:
        column = self.column("attributes" if attribute else name)
        if column is None:
            return None
        if not attribute:
            return _Column(*column, None)
        starts, sizes = (np.empty(len(self), dtype=np.int32) for _ in range(2))
        quoted = np.zeros(len(self), dtype=bool)
        wanted = name.encode()
        native.library.tocsin_attribute(
            self._placed(*column), wanted, len(wanted),
            native.at(quoted, np.bool_), native.at(starts, np.int32), native.at(sizes, np.int32),
        )  # fmt: skip
        return _Column(starts, sizes, quoted)

    def _placed(self, starts: Place, sizes: Place) -> native.Column:
        data = self.data
        return native.Column(
            native.at(data, np.uint8), len(data), native.at(starts, np.int32), native.at(sizes, np.int32), len(self)
        )  # fmt: skip

    def _texts(self, column: _Column, rows: Int) -> list[str]:
        places = zip(column.starts[rows].tolist(), column.sizes[rows].tolist(), strict=True)
        return [self.data[start : start + size].tobytes().decode() for start, size in places]


class _Column(NamedTuple):
    """Where the values of a field or an attribute stand, int32[n] both; for attributes bool[n]: which values are in quotes."""

    starts: Place
    sizes: Place
    quoted: Bool | None


def _kind(name: str) -> int:
    return _LAYOUT.kinds[_PLACE[name]]


def _scalar(text: str) -> bool | int | float:
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text)


def scan(data: Bytes, value_at: Int, value_size: Int) -> Scanned:
    """The events of the values data[value_at : value_at + value_size], each a JSON object or an array of them.

    `data` has less than 2**31 bytes.
    """
    count = len(value_at)
    doubtful = np.ones(count, dtype=bool)
    record, index = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    starts, sizes = (np.empty((_LAYOUT.width, count), dtype=np.int32) for _ in range(2))
    values = native.Values(
        native.at(data, np.uint8), len(data), native.at(value_at, np.int64), native.at(value_size, np.int64), count
    )  # fmt: skip
    found = native.Found(doubtful=native.at(doubtful, np.bool_))
    while True:
        found.starts, found.sizes = native.at(starts, np.int32), native.at(sizes, np.int32)
        found.slots, found.room = _LAYOUT.used, len(record)
        found.record, found.index = native.at(record, np.int64), native.at(index, np.int64)
        why = native.library.tocsin_scan(_LAYOUT.contract, values, found)
        row = found.row
        if why == _DONE:
            break
        room = len(record)
        if why == _NO_ROOM:
            room = max(2 * room, 64)
            record, index = (np.resize(column, room) for column in (record, index))
        else:
            sizes[_LAYOUT.used, :row] = -1
            _LAYOUT.add(why)
        if (_LAYOUT.width, room) != starts.shape:
            starts, sizes = (_wider(column, (_LAYOUT.width, room), row) for column in (starts, sizes))
    return Scanned(data, record[:row], index[:row], doubtful, starts[:, :row], sizes[:, :row], _LAYOUT.slot_of.copy())


def _wider(columns: Place, shape: tuple[int, int], rows: int) -> Place:
    """The first `rows` of `columns` in arrays of that shape."""
    made = np.empty(shape, dtype=np.int32)
    made[: len(columns), :rows] = columns[:, :rows]
    return made
