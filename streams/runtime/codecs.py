"""Where compressed batches are decompressed: memory that is used again, and a cap, as a batch of 1 MiB can hold 32 GB.

aiokafka decompresses a batch whole, into memory of its own. Its decoders are replaced by those of this module.
"""

from __future__ import annotations

import gzip
import io
import mmap
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import cramjam
from aiokafka.codec import snappy_decode
from aiokafka.record import default_records

MAX_BATCH: Final = 64 << 20
"""Bytes that a batch may hold when it is decompressed."""
_KEPT: Final = 4 << 20
"""Bytes that stay in use between batches. Fresh memory costs as much as decompressing into it."""


class BatchTooLargeError(ValueError):
    """A compressed batch holds more than it may."""


class Memory(threading.local):
    """Where batches are decompressed one after the other, of each at most `limit` bytes. Each thread has its own.

    The system provides of it only what is written to.
    """

    def __init__(self, limit: int = MAX_BATCH, room: int = 2 * MAX_BATCH) -> None:
        self.limit = limit
        # Shared pages would stay when they are given back.
        self._pages = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._pages)

    def add(self, codec: int, payload: memoryview, at: int) -> int:
        """Decompress `payload` to `at`; returns its size. Raises BatchTooLargeError, and whatever the codec raises."""
        name, decode = _CODECS[codec]
        try:
            return decode(payload, self.view[at : at + self.limit])
        except Exception as error:
            self._give_back(at)
            if isinstance(error, _NoRoomError) or (isinstance(error, cramjam.DecompressionError) and "write" in str(error)):
                raise BatchTooLargeError(f"a {name} batch of {len(payload)} bytes holds more than {self.limit}") from error
            raise

    def take(self, size: int) -> bytes:
        """What was decompressed, `size` bytes of it."""
        found = bytes(self.view[:size])
        if size > _KEPT:
            self._give_back(_KEPT)
        return found

    def _give_back(self, start: int) -> None:
        start = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        self._pages.madvise(mmap.MADV_DONTNEED, start, len(self._pages) - start)


class _NoRoomError(ValueError):
    pass


def _put(content: bytes | memoryview, into: memoryview) -> int:
    if len(content) > len(into):
        raise _NoRoomError
    into[: len(content)] = content
    return len(content)


def _gzip(payload: memoryview, into: memoryview) -> int:
    with gzip.GzipFile(fileobj=io.BytesIO(payload)) as reader:
        return _put(reader.read(len(into) + 1), into)


def _snappy(payload: memoryview, into: memoryview) -> int:
    return _put(snappy_decode(bytes(payload)), into)  # the format expands at most about twentyfold


_CODECS: Final[dict[int, tuple[str, Callable[[memoryview, memoryview], int]]]] = {
    0: ("plain", _put),
    1: ("gzip", _gzip),
    2: ("snappy", _snappy),
    3: ("lz4", cramjam.lz4.decompress_into),
    4: ("zstd", cramjam.zstd.decompress_into),
}
"""By the number that a batch has for it."""
MEMORY: Final = Memory()
"""Each role fetches in a thread of its own, and decompressing lets other threads run."""


def decode(codec: int, payload: bytes) -> bytes:
    """The content of `payload`. Raises what Memory.add does."""
    return MEMORY.take(MEMORY.add(codec, memoryview(payload), 0))


def install() -> None:
    """Put the capped decoders in the place of aiokafka's."""
    module: Any = __import__(default_records.DefaultRecordBatch.__module__, fromlist=["DefaultRecordBatch"])
    module.gzip_decode, module.snappy_decode, module.lz4_decode, module.zstd_decode = (
        partial(decode, codec) for codec in range(1, 5)
    )
