"""The fields of the events of a chunk: those that were scanned, those that were decoded one by one, and both together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.event import Event
from schemas.expression import FieldReference
from streams.kernel.columns import MISSING, Fields, Float, Groups, Int, Text, as_text, groups_of, text_of
from streams.scanner import Scanned

DEFAULTS: Final[dict[str, Any]] = {name: Event.model_fields[name].default for name in ("tenant", "weight")}
"""What stands for these fields where they are absent."""


class ScannedFields(NamedTuple):
    """Fields of scanned events."""

    scanned: Scanned

    def __len__(self) -> int:
        return len(self.scanned)

    def values(self, reference: FieldReference) -> list[Any]:
        """See Fields."""
        found = self.scanned.values(reference.field, attribute=reference.attribute)
        default = _default(reference)
        return found if default is None else [default if value is None else value for value in found]

    def number(self, reference: FieldReference) -> Float:
        """See Fields."""
        found = self.scanned.numbers(reference.field, attribute=reference.attribute)
        default = _default(reference)
        return np.where(np.isnan(found), default, found) if isinstance(default, int) else found

    def text(self, reference: FieldReference) -> Text:
        """See Fields."""
        found = self.scanned.strings(reference.field, attribute=reference.attribute)
        if found is None:
            return text_of([as_text(value) for value in self.values(reference)])
        codes, words = found
        default = as_text(_default(reference))
        if default is None or not (codes == MISSING).any():
            return found
        if default not in words:
            words = [*words, default]
        return Text(np.where(codes == MISSING, words.index(default), codes), words)

    def groups(self, references: Sequence[FieldReference]) -> Groups:
        """See Fields."""
        parts = [(each.field, each.attribute, as_text(_default(each)) or "") for each in references]
        return self.scanned.keys(parts) or groups_of([self.text(each) for each in references], len(self))


def _default(reference: FieldReference) -> Any:
    return None if reference.attribute else DEFAULTS.get(reference.field)


class JoinedFields(NamedTuple):
    """Fields of events of several kinds: those of `parts[i]` stand at `rows[i]`."""

    parts: tuple[Fields, ...]
    rows: tuple[Int, ...]

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def values(self, reference: FieldReference) -> list[Any]:
        """See Fields."""
        found: list[Any] = [None] * len(self)
        for part, rows in zip(self.parts, self.rows, strict=True):
            for row, value in zip(rows.tolist(), part.values(reference), strict=True):
                found[row] = value
        return found

    def number(self, reference: FieldReference) -> Float:
        """See Fields."""
        found = np.empty(len(self))
        for part, rows in zip(self.parts, self.rows, strict=True):
            found[rows] = part.number(reference)
        return found

    def text(self, reference: FieldReference) -> Text:
        """See Fields."""
        codes = np.empty(len(self), dtype=np.int64)
        places: dict[str, int] = {}
        for part, rows in zip(self.parts, self.rows, strict=True):
            column, words = part.text(reference)
            # The last place is that of MISSING, which is -1.
            shared = np.array([*(places.setdefault(word, len(places)) for word in words), MISSING], dtype=np.int64)
            codes[rows] = shared[column]
        return Text(codes, list(places))

    def groups(self, references: Sequence[FieldReference]) -> Groups:
        """See Fields."""
        return groups_of([self.text(each) for each in references], len(self))
