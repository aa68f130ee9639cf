"""The table of a partition in RocksDB: what a checkpoint or the changelog says, written whole or not at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import rocksdict
from faust.stores import STORES
from faust.stores.rocksdb import Store as RocksDBStore

from streams.records import Incoming
from streams.runtime.producer import INTERNAL, Items
from streams.runtime.staging import COMMIT, staged

if TYPE_CHECKING:
    from streams.runtime.app import RoleApp

log = logging.getLogger("tocsin.runtime")

SCHEME: Final = "tocsin-rocksdb"
OPTIONS: Final = {
    "block_cache_size": 16 << 20,
    "write_buffer_size": 16 << 20,
    "max_write_buffer_number": 2,
    "max_open_files": 256,
}
"""Small, since all state is in memory as well: the table is read once, when its partition is opened."""


class BrokenStoreError(RuntimeError):
    """The local table of a partition could not be read; it was put aside, and the next start rebuilds it."""


class AtomicStore(RocksDBStore):
    """Faust's RocksDB store, with writes that hold data and changelog offset together, in raw mode (nothing is unpickled)."""

    app: RoleApp

    def commit_batch(self, partition: int, items: Items, changelog_offset: int) -> None:
        """Write `items` (None: deleted) and the changelog offset that they end at, in one batch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in items:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.offset_key, b"%d" % changelog_offset)
        self._db_for_partition(partition).write(batch)

    def apply_records(self, partition: int, records: Sequence[Incoming], upto: int) -> None:
        """Write what `records` of the changelog say, and the offset `upto`. A record without a key says nothing."""
        items: list[tuple[bytes, bytes | None]] = []
        for record in records:
            if record.key is None:
                continue
            items.append((record.key, record.value))
            if record.key == COMMIT and record.value is not None:
                # The parts must be in the table before they can be read from it.
                self.commit_batch(partition, items, record.offset)
                items, _ = staged(record.value, self._db_for_partition(partition).get)
        self.commit_batch(partition, items, upto)

    def unfinished(self, partition: int) -> tuple[Items, int] | None:
        """The items and the number of parts of a large checkpoint that was not written to its end, if there is one."""
        db = self._db_for_partition(partition)
        commit = db.get(COMMIT)
        return None if commit is None else staged(commit, db.get)

    def holds(self, partition: int, record: Incoming) -> bool:
        """Whether the table says of the record's key what the record says."""
        value: bytes | None = self._db_for_partition(partition).get(record.key)
        return value == record.value

    def items_of(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a partition, without the runtime's own.

        Raises BrokenStoreError where the files are damaged; they are put aside then.
        """
        rows = self._db_for_partition(partition).iter()
        rows.seek_to_first()
        while rows.valid():
            key = rows.key()
            if key != self.offset_key and not key.startswith(INTERNAL):
                yield key, rows.value()
            rows.next()
        try:
            rows.status()  # at a damaged block the iterator just ends, as if there were nothing more
        except Exception as error:  # what rocksdict raises
            self.put_aside(partition, error)
            raise BrokenStoreError(f"the local table of partition {partition} is damaged and was put aside: {error}") from error

    def changelog_offset(self, partition: int) -> int | None:
        """The offset of the last changelog record that is in the table."""
        offset = self._db_for_partition(partition).get(self.offset_key)
        return None if offset is None else int(offset)

    def put_aside(self, partition: int, reason: object) -> None:
        """Rename the files of a partition, so that it is rebuilt from the changelog."""
        self._dbs.pop(partition, None)
        path = self.partition_path(partition)
        if path.exists():
            aside = path.with_name(f"{path.name}.broken-{time.time_ns() // 1_000_000}")
            path.rename(aside)
            log.warning("partition %d: local table put aside as %s and rebuilt from the changelog: %s", partition, aside, reason)

    def _open_for_partition(self, partition: int) -> Any:
        try:
            return super()._open_for_partition(partition)
        except Exception as error:
            if "lock" in repr(error).lower():
                raise  # Faust tries again: another process is about to let go of it
            self.put_aside(partition, error)
            return super()._open_for_partition(partition)


STORES.aliases[SCHEME] = f"{AtomicStore.__module__}:{AtomicStore.__name__}"
