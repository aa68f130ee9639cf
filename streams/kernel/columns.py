"""A chunk of the log as columns: what the kernel folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.expression import FieldReference, Predicate, type_of
from streams.kernel.distinct import distinct
from streams.kernel.group import encode_key

Int = NDArray[np.int64]
Bool = NDArray[np.bool_]
Float = NDArray[np.float64]

MISSING = -1


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a forwarded event was found first."""

    partition: int
    offset: int
    index: int


@dataclass(frozen=True, slots=True)
class Redriven:
    """Where a dead letter that was sent once more stood first on this partition, and when it was appended there (µs)."""

    offset: int
    append_time: int


class Text(NamedTuple):
    """A text column: `codes` int64[n] into `words`, MISSING where the event has no such field."""

    codes: Int
    words: list[str]


class Groups(NamedTuple):
    """A grouping: `codes` int64[n] number the keys, which stand one after the other in `keys`, as table keys hold them.

    Key i ends before `ends[i]`, int64.
    """

    codes: Int
    keys: bytes
    ends: Int


class Fields(Protocol):
    """The fields of n events, column by column."""

    def __len__(self) -> int:
        """How many events."""
        ...

    def values(self, reference: FieldReference) -> list[Any]:
        """The values of a field as str, bool, int or float, None where it is absent."""
        ...

    def number(self, reference: FieldReference) -> Float:
        """The field as float64[n], NaN where it is absent or no number. Lossless, since integers lie within +-2**53."""
        ...

    def text(self, reference: FieldReference) -> Text:
        """The field as interned text: booleans and numbers as JSON writes them."""
        ...

    def groups(self, references: Sequence[FieldReference]) -> Groups:
        """The groups that the texts of some fields divide the events into; what is absent is an empty text."""
        ...


class Structs(NamedTuple):
    """Fields of decoded structs, which have one attribute per event field; what is no str, bool, int or float is absent."""

    events: Sequence[Any]

    def __len__(self) -> int:
        return len(self.events)

    def values(self, reference: FieldReference) -> list[Any]:
        """See Fields."""
        return [value if isinstance(value, _SCALAR) else None for value in self._raw(reference)]

    def _raw(self, reference: FieldReference) -> list[Any]:
        name = reference.field
        if reference.attribute:
            return [event.attributes.get(name) if event.attributes else None for event in self.events]
        return list(map(attrgetter(name), self.events))

    def number(self, reference: FieldReference) -> Float:
        """See Fields."""
        return np.array(
            [
                value if isinstance(value, int | float) and value is not True and value is not False else np.nan
                for value in self.values(reference)
            ],
            dtype=np.float64,
        )

    def text(self, reference: FieldReference) -> Text:
        """See Fields."""
        raw = self._raw(reference)
        if reference.attribute or type_of[reference.field] != "text":
            raw = [as_text(value) for value in raw]
        return text_of(raw)

    def groups(self, references: Sequence[FieldReference]) -> Groups:
        """See Fields."""
        return groups_of([self.text(each) for each in references], len(self))


def text_of(raw: list[Any]) -> Text:
    """Texts interned. Whatever is no text stands for absence. The loops are in C: this runs for every event."""
    words = [word for word in dict.fromkeys(raw) if isinstance(word, str)]
    codes = dict.fromkeys(raw, MISSING) | {word: code for code, word in enumerate(words)}
    return Text(np.array([*map(codes.__getitem__, raw)], dtype=np.int64), words)


@dataclass(frozen=True, slots=True)
class Columns:
    """Events in log order, n of them.

    `fields` holds what they say. `offset`, `append_time` (µs), `ts` (µs), `weight` and `index` (place in a record's array)
    are int64[n]. `local` is False where an event belongs to another partition: it moves stream time and counts there.
    `origins` gives the origin of each row that was forwarded here, `redriven` that of each row of a redriven record.
    """

    fields: Fields
    offset: Int
    index: Int
    append_time: Int
    ts: Int
    weight: Int
    local: Bool
    origins: dict[int, Origin] = field(default_factory=dict)
    redriven: dict[int, Redriven] = field(default_factory=dict)
    _values: dict[FieldReference, list[Any]] = field(default_factory=dict)
    _texts: dict[FieldReference, Text] = field(default_factory=dict)
    _numbers: dict[FieldReference, Float] = field(default_factory=dict)
    masks: dict[Predicate, Bool] = field(default_factory=dict)
    _groups: dict[tuple[str, ...], Groups] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset)

    def values(self, reference: FieldReference) -> list[Any]:
        """The values of a field, None where it is absent."""
        found = self._values.get(reference)
        if found is None:
            found = self._values[reference] = self.fields.values(reference)
        return found

    def number(self, reference: FieldReference) -> Float:
        """The field as float64[n], NaN where it is absent or no number."""
        found = self._numbers.get(reference)
        if found is None:
            found = self._numbers[reference] = self.fields.number(reference)
        return found

    def text(self, reference: FieldReference) -> Text:
        """The field as interned text."""
        found = self._texts.get(reference)
        if found is None:
            found = self._texts[reference] = self.fields.text(reference)
        return found

    def groups(self, by: tuple[str, ...]) -> Groups:
        """The groups that the names in `by` divide the events into."""
        found = self._groups.get(by)
        if found is None:
            found = self._groups[by] = self.fields.groups([_reference(name) for name in by])
        return found


_SCALAR = (str, bool, int, float)


def _reference(by: str) -> FieldReference:
    name = by.removeprefix("attributes.")
    return FieldReference(field=name, attribute=name != by)


def groups_of(texts: Sequence[Text], rows: int) -> Groups:
    """The groups that text columns divide so many events into. What is absent is an empty text."""
    columns = [_without_empty(text) for text in texts]
    codes = np.zeros(rows, dtype=np.int64)
    for column, words in columns:
        # Dense after every name, so that the product of many large vocabularies cannot overflow.
        codes, _ = distinct(codes * (len(words) + 1) + column + 1)
    codes, first = distinct(codes)
    parts = [[words[code] if code != MISSING else "" for code in column[first].tolist()] for column, words in columns]
    keys = [encode_key(key) for key in zip(*parts, strict=True)]
    return Groups(codes, b"".join(keys), np.cumsum([*map(len, keys)], dtype=np.int64))


def _without_empty(text: Text) -> Text:
    """`text` with empty words as absent: to a group the two are one."""
    if "" not in text.words:
        return text
    return Text(np.where(text.codes == text.words.index(""), MISSING, text.codes), text.words)


def as_text(value: Any) -> str | None:
    """A scalar as JSON writes it; None for what is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class TickStep:
    """A tick record: silence up to its append time."""

    offset: int
    append_time: int


@dataclass(frozen=True, slots=True)
class SwitchStep:
    """A ruleset record: from this offset on the ruleset `ruleset` judges."""

    offset: int
    append_time: int
    ruleset: str
    seq: int


Step = Columns | TickStep | SwitchStep


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, up to and including `last_offset`. Dead letters are in it as nothing."""

    steps: tuple[Step, ...]
    last_offset: int
