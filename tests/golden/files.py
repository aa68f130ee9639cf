"""Golden files: what a release left on topics and in tables, as bytes, and what it meant.

    tests/golden/v<state version>/engine.json     a partition of the event topic, its changelog in the middle, what follows
                                  notifier.json   the same of the transitions
                                  records.json    a record of every kind, and what it decodes to

Bytes are text where they are printable ASCII, and otherwise hexadecimal behind "hex:".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

FOLDER: Final = Path(__file__).parent
KEY: Final = b"the control key of the golden files"
PARTITIONS: Final = 4
PARTITION: Final = 2
HEX: Final = "hex:"


class Kept(NamedTuple):
    """A record of a golden file, as it is fetched."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def to_text(data: bytes | None) -> str | None:
    """Bytes as JSON holds them."""
    if data is None:
        return None
    text = data.decode("ascii", "replace")
    return text if text.isprintable() and text.isascii() and not text.startswith(HEX) else HEX + data.hex()


def to_bytes(text: str | None) -> bytes | None:
    """See `to_text`."""
    if text is None:
        return None
    return bytes.fromhex(text.removeprefix(HEX)) if text.startswith(HEX) else text.encode()


def record_to_json(record: Any) -> dict[str, Any]:
    """A record as JSON."""
    headers = [[name, to_text(value)] for name, value in record.headers]
    place = {"offset": record.offset, "timestamp": record.timestamp}
    return place | {"key": to_text(record.key), "value": to_text(record.value), "headers": headers}


def record_of(document: dict[str, Any]) -> Kept:
    """See `record_to_json`."""
    headers = tuple((name, to_bytes(value) or b"") for name, value in document["headers"])
    return Kept(document["offset"], document["timestamp"], to_bytes(document["key"]), to_bytes(document["value"]), headers)


def items_to_json(items: Any) -> list[list[str | None]]:
    """Keys and values as JSON."""
    return [[to_text(key), to_text(value)] for key, value in items]


def items_of(rows: list[list[str | None]]) -> list[tuple[bytes, bytes | None]]:
    """See `items_to_json`."""
    return [(to_bytes(key) or b"", to_bytes(value)) for key, value in rows]


def meaning_of(table: dict[bytes, bytes]) -> dict[str, Any]:
    """The rows of a table with their values unpacked."""
    return {to_text(key) or "": json.loads(msgspec.json.encode(msgspec.msgpack.decode(table[key]))) for key in sorted(table)}


def read(version: Path, name: str) -> Any:
    """A golden file of a version."""
    return json.loads((version / f"{name}.json").read_text(encoding="utf-8"))


def versions() -> list[Path]:
    """The folders of the versions."""
    return sorted(FOLDER.glob("v[0-9]*"))
