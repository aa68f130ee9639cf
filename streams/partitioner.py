"""Which partition of the event topic an event belongs to: what Kafka's own clients compute for the key `tenant|service`."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

_SEED: Final = 0x9747B28C
_MIX: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF


def event_key(tenant: str, service: str) -> bytes:
    """The key that records of this tenant and service carry."""
    return f"{tenant}|{service}".encode()


@lru_cache(maxsize=65_536)
def partition_of(tenant: str, service: str, partitions: int) -> int:
    """The partition, of `partitions`, that holds the events of this tenant and service."""
    return (murmur2(event_key(tenant, service)) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The 32-bit hash of a key in org.apache.kafka.common.utils.Utils.murmur2, as an unsigned number."""
    whole = len(data) & ~3
    hashed = _SEED ^ len(data)
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MIX & _WORD
        word = (word ^ word >> 24) * _MIX & _WORD
        hashed = hashed * _MIX & _WORD ^ word
    if rest := data[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _MIX & _WORD
    hashed = (hashed ^ hashed >> 13) * _MIX & _WORD
    return hashed ^ hashed >> 15
