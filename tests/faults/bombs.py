"""Batches that hold much more than they weigh, as no client would make them: each is one record of zeros, compressed."""

from __future__ import annotations

import contextlib
import importlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import cramjam
from aiokafka import codec
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c, encode_varint

MIB: Final = 1 << 20
_HEAD: Final = struct.Struct(">qiibI")
_REST: Final = struct.Struct(">hiqqqhii")
_BLOCK: Final = 32 << 10
_FRAME: Final = bytes.fromhex("04224d18607073")
"""Of lz4: independent blocks of up to 4 MiB, no checksums but that of these bytes."""
_XERIAL: Final = struct.pack(">8sii", b"\x82SNAPPY\x00", 1, 1)


class Bomb(BatchBuilder):  # type: ignore[misc]
    """A batch for `send_batch` of a producer that is not idempotent."""

    def __init__(self, name: str, size: int) -> None:
        number, compress = CODECS[name]
        body = compress(_record(size))
        rest = _REST.pack(number, 0, 0, 0, -1, -1, -1, 1) + body
        crc = calc_crc32c(rest)
        self.weight = len(body)
        self._buffer = bytearray(_HEAD.pack(0, 4 + 1 + 4 + len(rest), -1, 2, crc) + rest)
        self._closed, self._relative_offset = True, 1


def _record(size: int) -> Iterator[bytes]:
    """A record whose value is `size` zeros, in parts."""
    start = bytearray(b"\0\0\0")  # attributes, differences of timestamp and offset
    for length in (-1, size):  # of key and value
        encode_varint(length, start.append)
    whole = bytearray()
    encode_varint(len(start) + size + 1, whole.append)
    yield bytes(whole + start)
    for at in range(0, size, MIB):
        yield bytes(min(MIB, size - at))
    yield b"\0"  # no headers


def _gzip(parts: Iterator[bytes]) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(part) for part in parts), packer.flush()])


def _snappy(parts: Iterator[bytes]) -> bytes:
    whole = b"".join(parts)
    blocks = [bytes(cramjam.snappy.compress_raw(whole[at : at + _BLOCK])) for at in range(0, len(whole), _BLOCK)]
    return _XERIAL + b"".join(struct.pack(">i", len(block)) + block for block in blocks)


def _lz4(parts: Iterator[bytes]) -> bytes:
    """A frame of independent blocks: brokers take no others."""
    whole = b"".join(parts)
    blocks = [
        bytes(cramjam.lz4.compress_block(whole[at : at + 4 * MIB], store_size=False)) for at in range(0, len(whole), 4 * MIB)
    ]
    return _FRAME + b"".join(struct.pack("<I", len(block)) + block for block in blocks) + bytes(4)


def _zstd(parts: Iterator[bytes]) -> bytes:
    packer = cramjam.zstd.Compressor()
    for part in parts:
        packer.compress(part)
    return bytes(packer.finish())


CODECS: Final[dict[str, tuple[int, Callable[[Iterator[bytes]], bytes]]]] = {
    "gzip": (1, _gzip),
    "snappy": (2, _snappy),
    "lz4": (3, _lz4),
    "zstd": (4, _zstd),
}
"""The number of each codec in a batch, and what packs a record with it."""
SIZES: Final = {"gzip": 512 * MIB, "snappy": 16 * MIB, "lz4": 220 * MIB, "zstd": 512 * MIB}
"""About as much as a batch of 1 MiB can hold, up to 512 MiB: lz4 and snappy expand at most 255 and 21 times."""


@contextlib.contextmanager
def no_caps() -> Iterator[None]:
    """Read batches here as the client does by itself: what a worker must refuse, a verdict has to read."""
    module: Any = importlib.import_module(DefaultRecordBatch.__module__)
    names = ("gzip_decode", "lz4_decode", "zstd_decode")
    before = {name: getattr(module, name) for name in names}
    for name in names:
        setattr(module, name, getattr(codec, name))
    try:
        yield
    finally:
        for name, decode in before.items():
            setattr(module, name, decode)
