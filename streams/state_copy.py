"""A copy of all state in one file: written whole or not at all, and read only where it is whole.

magic line
frames, each: length (4 bytes), msgpack of [kind, ...]
    header  what was copied, and from where
    rules   documents of rules and rulesets
    items   role, partition, some items of its table
    place   role, partition, the last record that its table covers, and a fingerprint of it
    end     how many frames there are, and the SHA-256 of all before
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, NamedTuple, Self

import msgspec

from streams.records import Incoming

MAGIC: Final = b"tocsin-state 1\n"
VERSION: Final = 1
_LENGTH: Final = struct.Struct(">I")
_MAX_FRAME: Final = 64 << 20
_ITEMS_IN_FRAME: Final = 1 << 20

Pair = tuple[bytes, bytes]


class StateCopyError(ValueError):
    """The file is no copy of state, is damaged, or cannot be used here."""


class Header(msgspec.Struct, frozen=True):
    """What was copied. `topics` are the full names of the topics that the roles read; `at` is in milliseconds."""

    tocsin: str
    group: str
    topics: dict[str, str]
    partitions: int
    at: int
    version: int = VERSION


class Covered(NamedTuple):
    """How far the table of a partition goes; `fingerprint` is that of the last record, empty where it was gone."""

    applied: int
    fingerprint: str


class Part(NamedTuple):
    """The state of one partition of one role."""

    role: str
    partition: int
    items: list[Pair]
    covered: Covered


def fingerprint_of(record: Incoming) -> str:
    """What tells a record from any other that ever stood at its offset."""
    held = (record.offset, record.timestamp, record.key, record.value, [list(header) for header in record.headers])
    return hashlib.sha256(msgspec.msgpack.encode(held)).hexdigest()


class CopyWriter:
    """Writes beside `path`, and takes its name in the end, if nothing went wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = hashlib.sha256()
        self._frames = 0
        self._file: IO[bytes]

    def __enter__(self) -> Self:
        folder = self._path.resolve().parent
        try:
            self._file = tempfile.NamedTemporaryFile(dir=folder, prefix=f".{self._path.name}.", delete=False)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error  # not a name that nobody has given
        self._write(MAGIC)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        temporary = Path(self._file.name)
        try:
            if kind is None:
                self._frame("end", self._frames, self._digest.hexdigest())
                self._file.flush()
                os.fsync(self._file.fileno())
                temporary.replace(self._path)
        finally:
            self._file.close()
            with suppress(FileNotFoundError):
                temporary.unlink()

    def header(self, header: Header) -> None:
        """First of all."""
        self._frame("header", msgspec.to_builtins(header))

    def rules(self, documents: Iterable[Pair]) -> None:
        """Keys and values of the topic of rules."""
        for key, value in documents:
            self._frame("rules", key, value)

    def part(self, part: Part) -> None:
        """The state of a partition."""
        run: list[Pair] = []
        size = 0
        for key, value in part.items:
            run.append((key, value))
            size += len(key) + len(value)
            if size > _ITEMS_IN_FRAME:
                self._frame("items", part.role, part.partition, run)
                run, size = [], 0
        self._frame("items", part.role, part.partition, run)
        self._frame("place", part.role, part.partition, *part.covered)

    def _frame(self, *fields: Any) -> None:
        body = msgspec.msgpack.encode(fields)
        self._write(_LENGTH.pack(len(body)) + body)
        self._frames += 1

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)


class CopyReader:
    """A copy that was checked from end to end when this was made. Raises StateCopyError where it is not whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for _ in self._frames():
            pass
        first = next(iter(self._frames()), None)
        if first is None or first[0] != "header":
            raise StateCopyError(f"{path} does not begin with its header")
        try:
            self.header = msgspec.convert(first[1], Header)
        except msgspec.ValidationError as error:
            raise StateCopyError(f"{path}: the header cannot be read: {error}") from None
        if self.header.version != VERSION:
            raise StateCopyError(f"{path} has version {self.header.version}, and this release reads {VERSION}")

    def rules(self) -> Iterator[Pair]:
        """Keys and values of the topic of rules."""
        for kind, *fields in self._frames():
            if kind == "rules":
                yield fields[0], fields[1]

    def parts(self) -> Iterator[Part]:
        """The partitions of the roles, one at a time."""
        items: list[Pair] = []
        for kind, *fields in self._frames():
            if kind == "items":
                items += [(key, value) for key, value in fields[2]]
            elif kind == "place":
                yield Part(fields[0], fields[1], items, Covered(fields[2], fields[3]))
                items = []

    def part(self, role: str, partition: int) -> Part | None:
        """One of them."""
        return next((part for part in self.parts() if (part.role, part.partition) == (role, partition)), None)

    def _frames(self) -> Iterator[list[Any]]:
        """Every frame but the last. Raises StateCopyError."""
        digest, number = hashlib.sha256(), 0
        with self._path.open("rb") as file:
            magic = file.read(len(MAGIC))
            if magic != MAGIC:
                raise StateCopyError(f"{self._path} is no copy of state that this release reads: it begins with {magic[:20]!r}")
            digest.update(magic)
            while True:
                length = file.read(_LENGTH.size)
                size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else -1
                body = file.read(size) if 0 <= size <= _MAX_FRAME else b""
                if len(body) != size:
                    raise StateCopyError(f"{self._path} is damaged or was cut off after {number} frames")
                try:
                    frame = msgspec.msgpack.decode(body, type=list[Any])
                except (msgspec.DecodeError, ValueError, RecursionError) as error:
                    raise StateCopyError(f"{self._path} is damaged at frame {number}: {error}") from None
                if frame[:1] == ["end"]:
                    if frame[1:] != [number, digest.hexdigest()] or file.read(1):
                        raise StateCopyError(f"{self._path} is damaged: its checksum is wrong")
                    return
                digest.update(length + body)
                number += 1
                yield frame
