"""The disk of a machine: the product's table over dictionaries, each batch whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from streams.runtime.producer import INTERNAL, Items
from streams.runtime.store import AtomicStore


@dataclass
class Files:
    """What is on disk of one partition."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    offset: int | None = None

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""
        return self.rows.get(key)

    def copy(self) -> Files:
        """The same once more."""
        return Files(dict(self.rows), self.offset)


Disk = dict[tuple[str, int], Files]
"""Of a machine: what it holds by role and partition."""


class SimulatedStore(AtomicStore):
    """`step` is called before and after each write; it may end the process."""

    def __init__(self, disk: Disk, role: str, step: Callable[[], None]) -> None:
        self._disk, self._role, self._step = disk, role, step

    def _db_for_partition(self, partition: int) -> Any:
        return self._disk.setdefault((self._role, partition), Files())

    def commit_batch(self, partition: int, items: Items, changelog_offset: int) -> None:
        self._step()
        files: Files = self._db_for_partition(partition)
        for key, value in items:
            if value is None:
                files.rows.pop(key, None)
            else:
                files.rows[key] = value
        files.offset = changelog_offset
        self._step()

    def changelog_offset(self, partition: int) -> int | None:
        offset: int | None = self._db_for_partition(partition).offset
        return offset

    def items_of(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        return iter([item for item in self._db_for_partition(partition).rows.items() if not item[0].startswith(INTERNAL)])

    def put_aside(self, partition: int, reason: object) -> None:
        self._step()
        self._disk.pop((self._role, partition), None)
