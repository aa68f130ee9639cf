"""Columns back as events, to compare them with what a plainer reader finds."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.event import Event
from schemas.expression import FieldReference
from streams.fields import JoinedFields, ScannedFields
from streams.kernel.columns import Columns, Fields, Structs
from streams.scanner import Scanned


def events_of(columns: Columns) -> list[dict[str, Any]]:
    """The fields of each event, None where one is absent; `ts`, `weight` and `tenant` always stand there."""
    names = [name for name in Event.model_fields if name != "attributes"]
    values = {name: columns.values(FieldReference(field=name)) for name in names}
    assert (values["ts"], values["weight"]) == (columns.ts.tolist(), columns.weight.tolist())
    values["attributes"] = _attributes(columns.fields)
    return [{name: values[name][row] for name in Event.model_fields} for row in range(len(columns))]


def _attributes(fields: Fields) -> list[dict[str, Any] | None]:
    if isinstance(fields, JoinedFields):
        found: list[dict[str, Any] | None] = [None] * len(fields)
        for part, rows in zip(fields.parts, fields.rows, strict=True):
            for row, value in zip(rows.tolist(), _attributes(part), strict=True):
                found[row] = value
        return found
    if isinstance(fields, ScannedFields):
        return _scanned_attributes(fields.scanned)
    assert isinstance(fields, Structs)
    return [event.attributes or None for event in fields.events]


def _scanned_attributes(scanned: Scanned) -> list[dict[str, Any] | None]:
    column = scanned.column("attributes")
    if column is None:
        return [None] * len(scanned)
    places = zip(*(each.tolist() for each in column), strict=True)
    texts = [None if size < 0 else scanned.data[start : start + size].tobytes() for start, size in places]
    return [None if text is None else msgspec.json.decode(text) or None for text in texts]
