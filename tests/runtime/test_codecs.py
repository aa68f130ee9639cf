from __future__ import annotations

import contextlib
import gc
import gzip
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import cramjam
import pytest
from aiokafka.codec import snappy_encode
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from streams.runtime import codecs
from streams.runtime.batches import KeptRecords
from streams.runtime.transport import make_raw, raw_records

ENCODERS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "plain": (0, bytes),
    "gzip": (1, gzip.compress),
    "snappy": (2, snappy_encode),
    "lz4": (3, lambda data: bytes(cramjam.lz4.compress(data))),
    "zstd": (4, lambda data: bytes(cramjam.zstd.compress(data))),
}
PLACE = TopicPartition("t", 0)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_fits_is_decoded(name: str) -> None:
    codec, encode = ENCODERS[name]
    memory = codecs.Memory(3_000, 10_000)
    for data in (b"x", b"abc" * 1_000):
        assert memory.add(codec, memoryview(encode(data)), 5_000) == len(data)
        assert memory.take(5_000 + len(data))[5_000:] == data


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bomb_is_refused(name: str) -> None:
    codec, encode = ENCODERS[name]
    memory = codecs.Memory(2_999, 10_000)
    with pytest.raises(codecs.BatchTooLargeError, match=f"a {name} batch of .* bytes holds more than 2999"):
        memory.add(codec, memoryview(encode(b"abc" * 1_000)), 0)


@pytest.mark.parametrize("size", [2_999 << 10, 8_000 << 10])
def test_what_a_large_batch_took_is_given_back(size: int) -> None:
    """Whether it was read, or was too large."""
    memory = codecs.Memory(6_000 << 10, 10_000 << 10)
    assert memory.add(0, memoryview(b"a" * 10_000), 0) == 10_000
    with contextlib.suppress(codecs.BatchTooLargeError):
        memory.take(4_000_000 + memory.add(4, memoryview(bytes(cramjam.zstd.compress(b"b" * size))), 4_000_000))
    assert memory.view[9_000] == ord("a")
    assert memory.view[5 << 20] == 0


def test_threads_do_not_share_what_they_decompress() -> None:
    """As the codecs let other threads run, a second role would write over what the first has just read."""
    data = [bytes([number]) * 200_000 for number in range(2)]
    payloads = [memoryview(bytes(cramjam.zstd.compress(each))) for each in data]
    written = threading.Barrier(2)

    def read(number: int) -> bytes:
        size = codecs.MEMORY.add(4, payloads[number], 0)
        written.wait(10)
        return codecs.MEMORY.take(size)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, range(2))) == data


def batch(first: int, values: list[bytes], codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(
        2, codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=0, batch_size=1 << 30
    )
    for offset, value in enumerate(values):
        builder.append(offset, timestamp=1_000 + offset, key=b"k", value=value, headers=[("h", b"x")])
    data = bytearray(builder.build())
    data[:8] = first.to_bytes(8, "big")
    return bytes(data)


def fetched(*batches: bytes, at: int = 0) -> Any:
    return PartitionRecords(PLACE, KeptRecords(b"".join(batches)), [], at, None, None, True, "read_uncommitted")


@pytest.mark.parametrize("codec", range(5))
def test_raw_records_are_those_of_the_client(codec: int) -> None:
    batches = [batch(0, [b"a", b"b"], codec), batch(2, [b"c", b"d", b"e"], codec)]
    for at in range(5):
        raw, client = fetched(*batches, at=at), fetched(*batches, at=at)
        ours, theirs = raw_records(raw), [record for record in client if record.offset >= at]
        assert [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in ours] == [
            (r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in theirs
        ]
        assert raw.next_fetch_offset == client.next_fetch_offset == 5


def test_what_was_fetched_is_freed_once_it_was_taken() -> None:
    source = fetched(batch(0, [b"a", b"b"]))
    state = SimpleNamespace(paused=False, position=0, consumed_to=lambda _: None)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    result = FetchResult(PLACE, assignment=assignment, partition_records=source, backoff=0)
    make_raw(SimpleNamespace(_records={PLACE: result}))
    kept = weakref.ref(result), weakref.ref(source)
    gc.disable()  # which runs so seldom that it might as well never
    try:
        assert [record.value for record in result.getall()] == [b"a", b"b"]
        del source, result
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


def test_a_batch_that_cannot_be_decompressed_is_left_out_and_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs.MEMORY, "limit", 1_000)
    source = fetched(batch(0, [b"a"]), batch(1, [b"\0" * 500] * 3, codec=4), batch(4, [b"z"]))
    with caplog.at_level(logging.ERROR):
        found = raw_records(source)
    assert [(record.offset, record.value) for record in found] == [(0, b"a"), (3, None), (4, b"z")]
    assert source.next_fetch_offset == 5
    assert "t[0]: the batch at offsets 1 to 3 cannot be decompressed" in caplog.text
