"""A cap on what a compressed batch may decompress to: one of 1 MiB can hold 32 GB.

aiokafka decompresses a batch whole. Its decoders are replaced here by ones that stop at MAX_BATCH; snappy is left as it is,
since its format expands at most about twentyfold.
"""

from __future__ import annotations

import gzip
import io
import mmap
from collections.abc import Callable
from typing import Any, Final

import cramjam
from aiokafka.record import default_records

MAX_BATCH: Final = 64 << 20
"""Bytes that a batch may hold when it is decompressed."""


class BatchTooLargeError(ValueError):
    """A compressed batch holds more than MAX_BATCH bytes."""


def decode_gzip(payload: bytes, limit: int = MAX_BATCH) -> bytes:
    """The content of `payload`. Raises BatchTooLargeError."""
    with gzip.GzipFile(fileobj=io.BytesIO(payload)) as reader:
        content = reader.read(limit + 1)
    if len(content) > limit:
        raise BatchTooLargeError(f"a gzip batch of {len(payload)} bytes holds more than {limit}")
    return content


def decode_lz4(payload: bytes, limit: int = MAX_BATCH) -> bytes:
    """The content of `payload`. Raises BatchTooLargeError."""
    return _into(cramjam.lz4.decompress_into, "lz4", payload, limit)


def decode_zstd(payload: bytes, limit: int = MAX_BATCH) -> bytes:
    """The content of `payload`. Raises BatchTooLargeError."""
    return _into(cramjam.zstd.decompress_into, "zstd", payload, limit)


def _into(decompress: Callable[[bytes, mmap.mmap], int], name: str, payload: bytes, limit: int) -> bytes:
    with mmap.mmap(-1, limit) as buffer:  # memory of which the system provides only what is written to
        try:
            size = decompress(payload, buffer)
        except cramjam.DecompressionError as error:
            if "write" in str(error):
                raise BatchTooLargeError(f"a {name} batch of {len(payload)} bytes holds more than {limit}") from error
            raise
        return buffer[:size]


def install() -> None:
    """Put the capped decoders in the place of aiokafka's."""
    module: Any = __import__(default_records.DefaultRecordBatch.__module__, fromlist=["DefaultRecordBatch"])
    module.gzip_decode, module.lz4_decode, module.zstd_decode = decode_gzip, decode_lz4, decode_zstd
