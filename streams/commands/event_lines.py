"""JSON lines as records of the event topic: split, validated, keyed, and moved in time."""

from __future__ import annotations

import asyncio
import io
import json
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, Any, Final

from pydantic import ValidationError

from schemas.event import Event, parse_events
from streams.decode import MAX_FUTURE
from streams.partitioner import event_key
from streams.topics import MAX_RECORD

CHUNK: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input, counted from 1. `raw` is None for one of more than MAX_RECORD bytes, which is not kept."""

    number: int
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A record of the event topic, and the time of its event."""

    key: bytes
    value: bytes
    ts: int


class RefusedLineError(ValueError):
    """A line that breaks the contract. `field` is empty where the line as a whole does."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


class LineSplitter:
    """Cuts bytes into lines without keeping more than MAX_RECORD of one. Blank lines are counted and left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._too_long = False
        self._number = 0

    def feed(self, data: bytes) -> list[Line]:
        """The lines that `data` completes; empty data ends the input and completes the last."""
        parts = (self._rest + data).split(b"\n")
        self._rest = parts.pop() if data else b""
        lines = [line for part in parts if (line := self._line(part))]
        if len(self._rest) > MAX_RECORD:
            self._too_long = True
            self._rest = b""
        return lines

    def _line(self, part: bytes) -> Line | None:
        self._number += 1
        too_long, self._too_long = self._too_long or len(part) > MAX_RECORD, False
        if too_long:
            return Line(self._number, None)
        return Line(self._number, part.strip()) if part.strip() else None


async def lines_of(source: IO[bytes]) -> AsyncIterator[Line]:
    """The lines of `source`, as they come."""
    splitter = LineSplitter()
    while data := await _read(source):
        for line in splitter.feed(data):
            yield line
    for line in splitter.feed(b""):
        yield line


async def _read(source: IO[bytes]) -> bytes:
    """What comes next. A pipe may be silent for long, so a thread waits, one that does not keep the process alive."""
    try:
        number = source.fileno()
    except io.UnsupportedOperation:
        return source.read(CHUNK)
    loop = asyncio.get_running_loop()
    read: asyncio.Future[bytes] = loop.create_future()

    def wait() -> None:
        data = os.read(number, CHUNK)
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda: None if read.done() else read.set_result(data))

    threading.Thread(target=wait, daemon=True).start()
    return await read


async def newest(source: IO[bytes], spool: IO[bytes]) -> int | None:
    """The latest event time in `source`, which is copied to `spool`; None where no line holds an event."""
    latest: int | None = None
    splitter = LineSplitter()
    data = b" "
    while data:
        data = await _read(source)
        spool.write(data)
        for line in splitter.feed(data):
            for event in _events_or_none(line):
                latest = max(event.ts, latest or 0)
    spool.flush()
    spool.seek(0)
    return latest


def _events_or_none(line: Line) -> list[Event]:
    try:
        return parse_events(line.raw or b"")
    except ValueError:
        return []  # refused, with its reason, when the spool is read


def records_of(line: Line, *, shift: int, now: int) -> list[EventRecord]:
    """The records that a line becomes, one per event, all times moved by `shift`. Raises RefusedLineError."""
    if line.raw is None:
        raise RefusedLineError("", f"is longer than {MAX_RECORD} bytes; a record holds no more, so use shorter arrays")
    try:
        events = parse_events(line.raw)
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(str(part) for part in detail["loc"])
        reason = "is missing" if detail["type"] == "missing" else detail["msg"].removeprefix("Value error, ")
        more = error.error_count() - 1
        raise RefusedLineError(field, reason + (f" (and {more} more)" if more else "")) from None
    except ValueError as error:
        raise RefusedLineError("", str(error)) from None
    if late := [event.ts for event in events if event.ts + shift > now + MAX_FUTURE]:
        raise RefusedLineError(
            "ts", f"lies {(late[0] + shift - now) // 1_000_000} s in the future, and the engine takes 300 s at most"
        )
    return [
        EventRecord(event_key(event.tenant, event.service), value, event.ts + shift)
        for event, value in zip(events, _values(line.raw, events, shift), strict=True)
    ]


def _values(raw: bytes, events: list[Event], shift: int) -> list[bytes]:
    if raw.startswith(b"{") and not shift:
        return [raw]
    loaded = json.loads(raw)
    given: list[dict[str, Any]] = loaded if isinstance(loaded, list) else [loaded]
    if shift:
        given = [each | {"ts": event.ts + shift} for each, event in zip(given, events, strict=True)]
    return [json.dumps(each, separators=(",", ":"), ensure_ascii=False).encode() for each in given]
