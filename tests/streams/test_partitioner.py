"""The partitioner is Kafka's: the same hash, the same sign bit, the same remainder."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from hypothesis import given
from hypothesis import strategies as st

from streams.partitioner import event_key, murmur2, partition_of


@pytest.mark.parametrize(
    ("data", "expected"),
    # From org.apache.kafka.common.utils.UtilsTest.
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hashes_of_the_java_client(data: bytes, expected: int) -> None:
    assert murmur2(data) - (1 << 32 if murmur2(data) >= 1 << 31 else 0) == expected


@given(st.binary(max_size=40))
def test_hashes_of_aiokafka(data: bytes) -> None:
    assert murmur2(data) == murmur2_of_aiokafka(data)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.integers(1, 64))
def test_partitions_of_aiokafka(tenant: str, service: str, partitions: int) -> None:
    chosen = DefaultPartitioner()(event_key(tenant, service), list(range(partitions)), [])
    assert partition_of(tenant, service, partitions) == chosen


def test_the_key_is_tenant_and_service() -> None:
    assert event_key("tänant", "files") == "tänant|files".encode()
    assert [partition_of("default", service, 8) for service in ("files", "time", "git")] == [1, 2, 4]
