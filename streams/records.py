"""What enters and leaves a partition: the seam between the pure parts and the clients of Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from schemas.dead_letter import Headers


class Incoming(Protocol):
    """A record as it was fetched. `timestamp` is in milliseconds."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""
        ...

    @property
    def timestamp(self) -> int:
        """When it was appended, in milliseconds."""
        ...

    @property
    def key(self) -> bytes | None:
        """What it is partitioned by."""
        ...

    @property
    def value(self) -> bytes | None:
        """What it says."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """What is said about it."""
        ...


class Outgoing(NamedTuple):
    """A record to be sent. `topic` has no prefix; `partition` None leaves the choice to the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


class Fold(Protocol):
    """What a role does with one of its partitions: folds records into state, and says what to send.

    The runtime sends what `process` and `wake` return, awaits it, writes `take_dirty` atomically to the changelog and
    to RocksDB, and only then commits: see streams/runtime/checkpoint.py.
    """

    @property
    def applied(self) -> int:
        """The last offset that was folded; -1 before the first."""
        ...

    @property
    def dirty_bytes(self) -> int:
        """About how many bytes `take_dirty` would return."""
        ...

    async def process(self, records: Sequence[Incoming]) -> Sequence[Outgoing]:
        """Fold `records`, in offset order; those at or below `applied` are skipped."""
        ...

    async def wake(self, now: int) -> Sequence[Outgoing]:
        """What has become due at `now` (µs) without a record."""
        ...

    def take_dirty(self) -> list[tuple[bytes, bytes | None]]:
        """Keys that changed since the last call, with their values (None: deleted) and the marker."""
        ...
