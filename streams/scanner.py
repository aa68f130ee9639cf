"""Events from JSON without making an object of any: where each field of each event stands in the bytes.

It takes what it can vouch for by the strict rules of streams/wire.py, and leaves everything else to it: unknown fields,
escapes, times as text, exponents, numbers of many digits, and whatever is wrong. So what is an event, and what it says, is
decided there; this is how most of it is found out fast. What both take, they must read alike: tests/streams/test_scanner.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool

from schemas import event as contract
from schemas.event import MAX_ATTRIBUTES, MAX_NUMBER, MAX_TEXT, MAX_WEIGHT, Event
from schemas.time import MIN_EVENT_TIME
from streams.compiled import compiled, inlined
from streams.fetched import Bytes, split
from streams.kernel.columns import Bool, Float, Int, Text

Place = NDArray[np.int32]

# --- the fields of Event -------------------------------------------------------------------------------------------

_TEXT, _NAME, _WORDS, _BOOL, _INTEGER, _NUMBER, _ATTRIBUTES = range(7)
_DONE, _NO_ROOM = -1, -2
_MAX_NAME: Final = 32
_HASHED: Final = 1024


class _Contract(NamedTuple):
    """The fields as arrays.

    `text` holds their names and the words that some of them may hold. `table` has a row for each field, see the columns below.
    `words` place words in `text`. `found` is a hash table of the names.
    """

    text: Bytes
    table: Int
    words: Int
    found: Int


_NAME_AT, _NAME_SIZE, _KIND, _NULLABLE, _LOWEST, _HIGHEST, _WORDS_FROM, _WORDS_TO = range(8)


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


def _hash_of(name: bytes) -> int:
    value = len(name)
    for byte in name:
        value = (value * 31 + byte) % 65_521
    return value % _HASHED


def _contract() -> _Contract:
    hints = get_type_hints(Event, include_extras=True)
    found = np.full(_HASHED, -1, dtype=np.int64)
    table: list[tuple[int, ...]] = []
    words: list[tuple[int, int]] = []
    text = b""
    for place, name in enumerate(FIELDS):
        kind, allowed, lowest, highest, nullable = _kind_of(name, hints[name])
        at = _hash_of(name.encode())
        while found[at] >= 0:
            at = (at + 1) % _HASHED
        found[at] = place
        first = len(words)
        name_at, text = len(text), text + name.encode()
        for word in allowed:
            words.append((len(text), len(word)))
            text += word.encode()
        table.append((name_at, len(name), kind, nullable, lowest, highest, first, len(words)))
    return _Contract(np.frombuffer(text, dtype=np.uint8), np.array(table), np.array(words), found)


# --- scanning ------------------------------------------------------------------------------------------------------

_QUOTE, _BACKSLASH, _COMMA, _COLON, _MINUS, _DOT = (np.uint8(ord(character)) for character in '"\\,:-.')
_OPEN, _CLOSE, _ARRAY, _ARRAY_END, _ZERO, _NINE, _N = (np.uint8(ord(character)) for character in "{}[]09n")
_NEEDED: Final = np.uint64(0b111)
"""ts, kind and service, the first fields."""
_MAX_DIGITS: Final = 16
_EXACT_DIGITS: Final = 15
_POWERS: Final = np.array([10.0**power for power in range(_EXACT_DIGITS + 8)])


@inlined
def _blank(data: Bytes, at: int, end: int) -> int:
    """Where blanks that begin at `at` end."""
    while at < end and (data[at] == 32 or data[at] == 10 or data[at] == 13 or data[at] == 9):
        at += 1
    return at


@compiled
def _character(data: Bytes, at: int, end: int) -> int:
    """How many bytes the character beyond ASCII at `at` has; 0 where it is no UTF-8."""
    first = np.int64(data[at])
    if first < 0xC2 or first > 0xF4:
        return 0
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if at + size > end:
        return 0
    second = np.int64(data[at + 1])
    lowest = 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80
    highest = 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF
    if second < lowest or second > highest:
        return 0
    for place in range(at + 2, at + size):
        if data[place] & 0xC0 != 0x80:
            return 0
    return size


@inlined
def _text(data: Bytes, at: int, end: int) -> int:
    """Where the text whose first character is at `at` ends, at its quote; -1 where it has escapes, faults or is too long."""
    start, extra = at, 0
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            return at if at - start - extra <= MAX_TEXT else -1
        if byte == _BACKSLASH or byte < 32:
            return -1
        if byte < 128:
            at += 1
        else:
            size = _character(data, at, end)
            if size == 0:
                return -1
            at += size
            extra += size - 1
    return -1


@inlined
def _digits(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The number that the digits at `at` make, of at most 16, and where they end; -1 where there are none, or more."""
    start, value = at, 0
    while at < end and data[at] >= _ZERO and data[at] <= _NINE and at - start <= _MAX_DIGITS:
        value = value * 10 + int(data[at] - _ZERO)
        at += 1
    size = at - start
    if size == 0 or size > _MAX_DIGITS:
        return 0, -1
    return value, at


@inlined
def _integer(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The integer at `at`, within +-2**53, and where it ends; -1 where it is none that is surely read alike everywhere."""
    negative = data[at] == _MINUS
    if negative:
        at += 1
    value, after = _digits(data, at, end)
    if after < 0 or (data[at] == _ZERO and (after - at > 1 or negative)) or value > MAX_NUMBER:
        return 0, -1
    if after < end and (data[after] == _DOT or data[after] == 69 or data[after] == 101):
        return 0, -1
    return -value if negative else value, after


@compiled
def _number(data: Bytes, at: int, end: int) -> tuple[float, int]:
    """The number at `at`, and where it ends; -1 where its nearest double takes more than one division of exact ones."""
    value, after = _integer(data, at, end)
    if after >= 0:
        return float(value), after
    negative = data[at] == _MINUS
    if negative:
        at += 1
    whole, point = _digits(data, at, end)
    if point < 0 or point >= end or data[point] != _DOT or (data[at] == _ZERO and point - at > 1):
        return 0.0, -1
    part, after = _digits(data, point + 1, end)
    if after < 0 or after - at - 1 > _EXACT_DIGITS:
        return 0.0, -1
    if after < end and (data[after] == 69 or data[after] == 101):
        return 0.0, -1
    power = after - point - 1
    scaled = float(whole * np.int64(_POWERS[power]) + part) / _POWERS[power]
    if negative and scaled == 0.0:
        return 0.0, -1
    return -scaled if negative else scaled, after


@inlined
def _same(left: Bytes, at: int, right: Bytes, place: int, size: int) -> bool:
    for step in range(size):  # noqa: SIM110 - all() is no loop that is compiled
        if left[at + step] != right[place + step]:
            return False
    return True


@compiled
def _literal(data: Bytes, at: int, end: int) -> int:
    """Where true, false or null at `at` ends; -1 where it is none of them."""
    for word in (b"true", b"false", b"null"):
        size = len(word)
        if at + size <= end:
            same = True
            for step in range(size):
                if data[at + step] != word[step]:
                    same = False
                    break
            if same:
                return at + size
    return -1


@compiled
def _attributes(data: Bytes, at: int, end: int) -> int:
    """Where the attributes whose brace is at `at` end; -1 where they cannot be vouched for."""
    names = np.empty((MAX_ATTRIBUTES, 2), dtype=np.int64)
    count = 0
    at = _blank(data, at + 1, end)
    if at < end and data[at] == _CLOSE:
        return at + 1
    while at < end and data[at] == _QUOTE and count < MAX_ATTRIBUTES:
        start = at + 1
        at = _text(data, start, end)
        if at <= start:
            return -1
        size = at - start
        for other in range(count):
            if names[other, 1] == size and _same(data, names[other, 0], data, start, size):
                return -1
        names[count, 0], names[count, 1] = start, size
        count += 1
        at = _blank(data, at + 1, end)
        if at >= end or data[at] != _COLON:
            return -1
        at = _blank(data, at + 1, end)
        if at >= end:
            return -1
        if data[at] == _QUOTE:
            at = _text(data, at + 1, end) + 1
        elif data[at] == _MINUS or (data[at] >= _ZERO and data[at] <= _NINE):
            at = _number(data, at, end)[1]
        else:
            at = _literal(data, at, end)
            if at > 0 and data[at - 2] == 108:  # the l of null
                return -1
        if at <= 0:
            return -1
        at = _blank(data, at, end)
        if at >= end:
            return -1
        if data[at] == _CLOSE:
            return at + 1
        if data[at] != _COMMA:
            return -1
        at = _blank(data, at + 1, end)
    return -1


@compiled
def _field(data: Bytes, at: int, end: int, text: Bytes, table: Int, found: Int) -> int:
    """The field whose name begins at `at`; -1 where there is none of that name."""
    stop = at
    while stop < end and data[stop] != _QUOTE and stop - at < _MAX_NAME:
        stop += 1
    size = stop - at
    value = size
    for place in range(at, stop):
        value = (value * 31 + int(data[place])) % 65_521
    slot = value % _HASHED
    while found[slot] >= 0:
        field = found[slot]
        if table[field, _NAME_SIZE] == size and _same(data, at, text, table[field, _NAME_AT], size):
            return int(field)
        slot = (slot + 1) % _HASHED
    return -1


@compiled
def _is_word(data: Bytes, at: int, size: int, first: int, last: int, text: Bytes, words: Int) -> bool:
    """Whether the text at `at` is one of the words from `first` to before `last`."""
    for number in range(first, last):  # noqa: SIM110 - any() is no loop that is compiled
        if words[number, 1] == size and _same(data, at, text, words[number, 0], size):
            return True
    return False


@compiled
def _scan(  # noqa: C901, PLR0912, PLR0915 - see below
    data: Bytes, value_at: Int, value_size: Int, first: int, row: int, text: Bytes, table: Int, words: Int, found: Int,
    next_field: Int, slot_of: Int, starts: Place, sizes: Place, record: Int, index: Int, doubtful: Bool,
) -> tuple[int, int, int]:  # fmt: skip
    """Scan the values from `first` on into rows from `row` on.

    Returns where it stopped, the rows filled, and why: _DONE, _NO_ROOM for more rows, or the field that has no slot.

    This is one function, as calls with many arrays cost more than what they do: each counts references.
    """
    slots = sizes.shape[1]
    word_at = np.zeros(len(table), dtype=np.int64)
    word_size = np.full(len(table), -1, dtype=np.int64)
    for place in range(first, len(value_at)):
        at, before = value_at[place], row
        end = at + max(value_size[place], 0)
        at = _blank(data, at, end)
        doubtful[place] = True
        if at >= end:
            continue
        is_array = data[at] == _ARRAY
        if is_array:
            at = _blank(data, at + 1, end)
        while at < end and data[at] == _OPEN:
            if row >= len(record):
                return place, before, _NO_ROOM
            for slot in range(slots):
                sizes[row, slot] = -1
            seen_low, seen_high = np.uint64(0), np.uint64(0)
            previous, whole = len(table), False
            at = _blank(data, at + 1, end)
            while at < end and data[at] == _QUOTE:
                at += 1
                # Producers write their fields in the same order again and again.
                field = next_field[previous]
                size = table[field, _NAME_SIZE]
                if at + size >= end or data[at + size] != _QUOTE or not _same(data, at, text, table[field, _NAME_AT], size):
                    field = _field(data, at, end, text, table, found)
                    if field < 0:
                        break
                    size = table[field, _NAME_SIZE]
                    if at + size >= end or data[at + size] != _QUOTE:
                        break
                    next_field[previous] = field
                previous = field
                bit = np.uint64(1) << np.uint64(field & 63)
                if field < 64:
                    if seen_low & bit:
                        break
                    seen_low |= bit
                else:
                    if seen_high & bit:
                        break
                    seen_high |= bit
                at = _blank(data, at + size + 1, end)
                if at >= end or data[at] != _COLON:
                    break
                at = _blank(data, at + 1, end)
                if at >= end:
                    break
                slot, kind, byte, start = slot_of[field], table[field, _KIND], data[at], at
                if slot < 0:
                    return place, before, field
                if byte == _QUOTE:
                    start = at + 1
                    stop = _text(data, start, end)
                    size = stop - start
                    if stop < 0 or kind > _WORDS or (kind == _NAME and size == 0):
                        break
                    if kind == _WORDS and (word_size[field] != size or not _same(data, start, data, word_at[field], size)):
                        if not _is_word(data, start, size, table[field, _WORDS_FROM], table[field, _WORDS_TO], text, words):
                            break
                        word_at[field], word_size[field] = start, size
                    at = stop + 1
                elif byte == _MINUS or (byte >= _ZERO and byte <= _NINE):
                    if kind == _INTEGER:
                        value, at = _integer(data, at, end)
                        if value < table[field, _LOWEST] or value > table[field, _HIGHEST]:
                            break
                    elif kind == _NUMBER:
                        at = _number(data, at, end)[1]
                    else:
                        break
                    size = at - start
                elif byte == _OPEN:
                    at = _attributes(data, at, end) if kind == _ATTRIBUTES else -1
                    size = at - start
                else:
                    at = _literal(data, at, end)
                    size = at - start
                    if byte == _N:
                        size = -1
                        if not table[field, _NULLABLE]:
                            break
                    elif kind != _BOOL:
                        break
                if at < 0:
                    break
                starts[row, slot], sizes[row, slot] = start, size
                at = _blank(data, at, end)
                if at >= end:
                    break
                if data[at] == _CLOSE:
                    whole = seen_low & _NEEDED == _NEEDED
                    break
                if data[at] != _COMMA:
                    break
                at = _blank(data, at + 1, end)
            if not whole:
                break
            record[row], index[row] = place, row - before
            row += 1
            at = _blank(data, at + 1, end)
            if not is_array:
                doubtful[place] = at != end
                break
            if at >= end:
                break
            if data[at] == _ARRAY_END:
                doubtful[place] = _blank(data, at + 1, end) != end
                break
            if data[at] != _COMMA:
                break
            at = _blank(data, at + 1, end)
        if doubtful[place]:
            row = before
    return len(value_at), row, _DONE


# --- reading -------------------------------------------------------------------------------------------------------


@compiled
def _integers(data: Bytes, starts: Place, sizes: Place, slot: int, found: Int) -> None:
    """The integers of a column; what is absent stays as it is."""
    for row in range(len(starts)):
        if sizes[row, slot] >= 0:
            found[row] = _integer(data, starts[row, slot], starts[row, slot] + sizes[row, slot])[0]


@compiled
def _numbers(data: Bytes, starts: Place, sizes: Place, slot: int, found: Float) -> None:
    """The numbers of a column as doubles; what is absent, or no number, stays as it is."""
    for row in range(len(starts)):
        if sizes[row, slot] >= 0:
            first = data[starts[row, slot]]
            if first == _MINUS or (first >= _ZERO and first <= _NINE):
                found[row] = _number(data, starts[row, slot], starts[row, slot] + sizes[row, slot])[0]


@compiled
def _intern(data: Bytes, starts: Place, sizes: Place, slot: int, seed: int, table: Place, codes: Int, firsts: Int) -> int:
    """Number the texts of a column in the order in which they occur: `codes`, -1 where absent, and their first rows.

    `table` has a power of two of places, at least twice the rows, all of them -1. Returns how many texts there are.
    """
    count, mask = 0, len(table) - 1
    for row in range(len(starts)):
        size = int(sizes[row, slot])
        if size < 0:
            codes[row] = -1
            continue
        start = int(starts[row, slot])
        value = np.uint64(seed) ^ np.uint64(size)
        place = start
        for _ in range(size >> 3):
            word = (
                np.uint64(data[place])
                | np.uint64(data[place + 1]) << np.uint64(8)
                | np.uint64(data[place + 2]) << np.uint64(16)
                | np.uint64(data[place + 3]) << np.uint64(24)
                | np.uint64(data[place + 4]) << np.uint64(32)
                | np.uint64(data[place + 5]) << np.uint64(40)
                | np.uint64(data[place + 6]) << np.uint64(48)
                | np.uint64(data[place + 7]) << np.uint64(56)
            )
            value = (value ^ word) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(29)
            place += 8
        word = np.uint64(0)
        for step in range(size & 7):
            word = word << np.uint64(8) | np.uint64(data[place + step])
        value = (value ^ word) * np.uint64(0xC2B2AE3D27D4EB4F)
        value ^= value >> np.uint64(32)
        where = np.int64(value) & mask
        while True:
            code = int(table[where])
            if code < 0:
                table[where] = count
                firsts[count] = row
                codes[row] = count
                count += 1
                break
            other = int(firsts[code])
            if sizes[other, slot] == size and _same(data, starts[other, slot], data, start, size):
                codes[row] = code
                break
            where = (where + 1) & mask
    return count


@compiled
def _find_attribute(
    data: Bytes, starts: Place, sizes: Place, slot: int, name: Bytes, is_quoted: Bool, found_at: Place, found_size: Place
) -> None:
    """Where the value of the attribute `name` stands, text without its quotes; sizes are -1 where there is none."""
    for row in range(len(starts)):
        found_size[row] = -1
        if sizes[row, slot] < 0:
            continue
        at, end = int(starts[row, slot]), int(starts[row, slot]) + int(sizes[row, slot])
        at = _blank(data, at + 1, end)
        while data[at] == _QUOTE:
            start = at + 1
            stop = _text(data, start, end)
            mine = stop - start == len(name) and _same(data, start, name, 0, len(name))
            at = _blank(data, _blank(data, stop + 1, end) + 1, end)
            quoted = data[at] == _QUOTE
            place = at + 1 if quoted else at
            if quoted:
                at = _text(data, place, end)
            else:
                while data[at] != _COMMA and data[at] != _CLOSE and data[at] > 32:
                    at += 1
            if mine:
                found_at[row], found_size[row] = place, at - place
                is_quoted[row] = quoted
                break
            at = _blank(data, at + quoted, end)
            if data[at] == _CLOSE:
                break
            at = _blank(data, at + 1, end)


_CONTRACT: Final = _contract()
_FIRST_SLOTS: Final = 16
_SEED: Final = secrets.randbits(62)
"""So that nobody can send texts that all fall into one place of a hash table."""


class _Layout:
    """Which column holds which field, and which field follows which: learned from what was scanned, and kept for the next."""

    def __init__(self) -> None:
        self.slot_of = np.full(len(FIELDS), -1, dtype=np.int64)
        self.next_field = np.zeros(len(FIELDS) + 1, dtype=np.int64)
        self.used = 0
        self.width = _FIRST_SLOTS

    def add(self, field: int) -> bool:
        """Give `field` a column; whether there was room."""
        if self.used == self.width:
            self.width *= 2
            return False
        self.slot_of[field] = self.used
        self.used += 1
        return True


_LAYOUT: Final = _Layout()


@dataclass(frozen=True, slots=True)
class Scanned:
    """The events of the values that could be vouched for, n of them in order.

    `record` int64[n] is the place of each one's value, `index` int64[n] its place in the value's array. `doubtful` is bool for
    each value: True where its events are not among these. `starts` and `sizes`, int32[n, columns], place the fields in `data`.
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
            self.data, self.record[at], self.index[at], self.doubtful, self.starts[at], self.sizes[at], self.slot_of
        )  # fmt: skip

    def column(self, name: str) -> tuple[Place, Place] | None:
        """Where the values of a field begin, text without its quote, and their sizes, -1 where absent; None: in no event."""
        slot = self._slot(name)
        return None if slot < 0 else (self.starts[:, slot], self.sizes[:, slot])

    def integers(self, name: str, absent: int) -> Int:
        """A field of integers."""
        found = np.full(len(self), absent, dtype=np.int64)
        if self._slot(name) >= 0:
            _integers(self.data, self.starts, self.sizes, self._slot(name), found)
        return found

    def numbers(self, name: str, *, attribute: bool) -> Float:
        """A field as doubles, NaN where it is absent or no number."""
        found = np.full(len(self), np.nan)
        placed = self._placed(name, attribute)
        if placed is not None and (attribute or _kind(name) > _WORDS):
            sizes = placed.sizes if placed.quoted is None else np.where(placed.quoted[:, None], np.int32(-1), placed.sizes)
            _numbers(self.data, placed.starts, sizes, placed.slot, found)
        return found

    def strings(self, name: str, *, attribute: bool) -> Text | None:
        """A field as text; None for numbers that may be written in several ways."""
        placed = self._placed(name, attribute)
        codes = np.full(len(self), -1, dtype=np.int64)
        if placed is None or not len(self):
            return Text(codes, [])
        if _kind(name) == _NUMBER if placed.quoted is None else (~placed.quoted & (placed.sizes[:, 0] >= 0)).any():
            return None
        table = np.full(1 << (2 * len(self) - 1).bit_length(), -1, dtype=np.int32)
        firsts = np.empty(len(self), dtype=np.int64)
        count = _intern(self.data, placed.starts, placed.sizes, placed.slot, _SEED, table, codes, firsts)
        return Text(codes, self._texts(placed, firsts[:count]))

    def values(self, name: str, *, attribute: bool) -> list[Any]:
        """A field as str, bool, int or float, None where it is absent."""
        placed = self._placed(name, attribute)
        if placed is None:
            return [None] * len(self)
        is_text = _kind(name) <= _WORDS if placed.quoted is None else placed.quoted
        of: Callable[[str], bool | int | float] = float if placed.quoted is None and _kind(name) == _NUMBER else _scalar
        found: list[Any] = [None] * len(self)
        there = np.flatnonzero(placed.sizes[:, placed.slot] >= 0)
        plain = np.broadcast_to(is_text, len(self))[there].tolist()
        for row, text, known in zip(there.tolist(), self._texts(placed, there), plain, strict=True):
            found[row] = text if known else of(text)
        return found

    def _slot(self, name: str) -> int:
        return int(self.slot_of[_PLACE[name]])

    def _placed(self, name: str, attribute: bool) -> _Placed | None:
        if not attribute:
            slot = self._slot(name)
            return None if slot < 0 else _Placed(self.starts, self.sizes, slot, None)
        slot = self._slot("attributes")
        if slot < 0:
            return None
        starts, sizes = (np.empty(len(self), dtype=np.int32) for _ in range(2))
        quoted = np.zeros(len(self), dtype=bool)
        wanted = np.frombuffer(name.encode(), dtype=np.uint8)
        _find_attribute(self.data, self.starts, self.sizes, slot, wanted, quoted, starts, sizes)
        return _Placed(starts.reshape(-1, 1), sizes.reshape(-1, 1), 0, quoted)

    def _texts(self, placed: _Placed, rows: Int) -> list[str]:
        places = zip(placed.starts[rows, placed.slot].tolist(), placed.sizes[rows, placed.slot].tolist(), strict=True)
        return [self.data[start : start + size].tobytes().decode() for start, size in places]


class _Placed(NamedTuple):
    """A column: `starts` and `sizes` int32[n, columns], and which of the columns; for attributes which values are in quotes.

    The arrays stay whole, as numba compiles anew for each layout, and that of one column depends on the number of rows.
    """

    starts: Place
    sizes: Place
    slot: int
    quoted: Bool | None


def _kind(name: str) -> int:
    return int(_CONTRACT.table[_PLACE[name], _KIND])


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
    starts, sizes = (np.empty((count, _LAYOUT.width), dtype=np.int32) for _ in range(2))
    place = row = 0
    while True:
        place, row, why = _scan(
            data, value_at, value_size, place, row, *_CONTRACT, _LAYOUT.next_field, _LAYOUT.slot_of, starts, sizes, record, index,
            doubtful,
        )  # fmt: skip
        if why == _DONE:
            break
        if why == _NO_ROOM:
            more = max(2 * len(record), 64)
            record, index = (np.resize(column, more) for column in (record, index))
            starts, sizes = (_wider(column, more, _LAYOUT.width, row) for column in (starts, sizes))
        elif not _LAYOUT.add(why) and _LAYOUT.add(why):
            starts, sizes = (_wider(column, len(record), _LAYOUT.width, row) for column in (starts, sizes))
            sizes[:row, _LAYOUT.width // 2 :] = -1
    return Scanned(data, record[:row], index[:row], doubtful, starts[:row], sizes[:row], _LAYOUT.slot_of.copy())


def prepare() -> None:
    """Compile, or load, all that is compiled, so that no event waits for it. `python -m streams.scanner` does so ahead."""
    text = b'{"ts":1767225600000000,"kind":"metric","service":"s","value":1.5,"attributes":{"a":1,"b":"x"}}'
    scanned = scan(np.frombuffer(text, dtype=np.uint8), np.zeros(1, dtype=np.int64), np.array([len(text)], dtype=np.int64))
    for read in (scanned.numbers, scanned.strings, scanned.values):
        read("value", attribute=False)
        read("a", attribute=True)
        read("service", attribute=False)
    scanned.integers("ts", 0)
    split(bytes([12, 0, 0, 0, 1, 1, 0]), 1, 0, 0, 0, fixed=False)


def _wider(column: Place, rows: int, width: int, kept: int) -> Place:
    made = np.empty((rows, width), dtype=np.int32)
    made[:kept, : column.shape[1]] = column[:kept]
    return made


if __name__ == "__main__":
    prepare()
