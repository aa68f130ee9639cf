"""The table of a partition in RocksDB: what a checkpoint or the changelog says, written whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rocksdict
from faust.stores import STORES
from faust.stores.rocksdb import Store as RocksDBStore
from faust.types import TP
from faust.types.tables import CollectionT

from streams.records import Incoming
from streams.runtime.producer import INTERNAL, Items
from streams.runtime.staging import COMMIT, staged

if TYPE_CHECKING:
    from streams.runtime.app import RoleApp

log = logging.getLogger("tocsin.runtime")

SCHEME: Final = "tocsin-rocksdb"
OPTIONS: Final = {
    "block_cache_size": 64 << 10,
    "write_buffer_size": 2 << 20,
    "max_write_buffer_number": 2,
    "max_open_files": 256,
}
"""Small, since all state is in memory as well: the table is read once, when its partition is opened."""


_DISK_SAYS: Final = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Too many open files",
)
"""What the system says when the files are in order and the disk, or its settings, are not."""
_ASIDE: Final = ".broken-"


class BrokenStoreError(RuntimeError):
    """The local table of a partition could not be read or written; it was put aside, to be rebuilt from the changelog."""


class LocalDiskError(RuntimeError):
    """The disk of the local state takes or gives nothing; says which path, and what to do."""


def disk_error(path: Path, reason: str) -> LocalDiskError:
    """The error of a `path` of the local state that cannot be used."""
    return LocalDiskError(
        f"the local state in {path} cannot be used: {reason}. Make room there or mend its permissions, or set TOCSIN_DATA_DIR "
        "to another folder, and start again: nothing is lost, the changelog holds all of it"
    )


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
        with self._table(partition) as db:
            db.write(batch)

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
                items, _ = staged(record.value, partial(self._value, partition))
        self.commit_batch(partition, items, upto)

    def unfinished(self, partition: int) -> tuple[Items, int] | None:
        """The items and the number of parts of a large checkpoint that was not written to its end, if there is one."""
        commit = self._value(partition, COMMIT)
        return None if commit is None else staged(commit, partial(self._value, partition))

    def holds(self, partition: int, record: Incoming) -> bool:
        """Whether the table says of the record's key what the record says."""
        return record.key is not None and self._value(partition, record.key) == record.value

    def items_of(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a partition, without the runtime's own."""
        with self._table(partition) as db:
            rows = db.iter()
            rows.seek_to_first()
        try:
            while rows.valid():
                key = rows.key()
                if key != self.offset_key and not key.startswith(INTERNAL):
                    yield key, rows.value()
                rows.next()
            rows.status()  # at a damaged block the iterator just ends, as if there were nothing more
        except Exception as error:
            del rows  # it holds the files open
            raise self._explained(partition, error) from error

    def changelog_offset(self, partition: int) -> int | None:
        """The offset of the last changelog record that is in the table."""
        offset = self._value(partition, self.offset_key)
        return None if offset is None else int(offset)

    def persisted_offset(self, tp: TP) -> int | None:
        """None: Faust asks at each assignment, before recovery opens the table and can say what is wrong with the disk."""
        return None

    def put_aside(self, partition: int, reason: object) -> None:
        """Rename the files of a partition, so that it is rebuilt from the changelog. What was put aside before is deleted."""
        db = self._dbs.pop(partition, None)
        if db is not None:
            with contextlib.suppress(Exception):  # a damaged table may not close in order
                db.close()
        path = self.partition_path(partition)
        if not path.exists():
            return
        older = list(path.parent.glob(f"{path.name}{_ASIDE}*"))
        aside = path.with_name(f"{path.name}{_ASIDE}{time.time_ns() // 1_000_000}")
        try:
            path.rename(aside)
        except OSError as error:
            raise disk_error(path, error.strerror or str(error)) from error
        for each in older:
            shutil.rmtree(each, ignore_errors=True)
        log.warning("partition %d: local table put aside as %s and rebuilt from the changelog: %s", partition, aside, reason)

    async def assign_partitions(self, table: CollectionT, tps: set[TP], generation_id: int = 0) -> None:
        """Open the tables. A disk that refuses is met again, and explained, where the partitions are taken over."""
        with contextlib.suppress(LocalDiskError):
            await super().assign_partitions(table, tps, generation_id)

    def _value(self, partition: int, key: bytes) -> bytes | None:
        with self._table(partition) as db:
            value: bytes | None = db.get(key)
        return value

    @contextlib.contextmanager
    def _table(self, partition: int) -> Iterator[Any]:
        """The table of a partition. Raises BrokenStoreError, once it was put aside, or LocalDiskError.

        While another process holds it, what rocksdict raises comes through.
        """
        try:
            yield self._db_for_partition(partition)
        except (BrokenStoreError, LocalDiskError):
            raise
        except Exception as error:
            if _is_held(error):
                raise
            raise self._explained(partition, error) from error

    def _explained(self, partition: int, error: Exception) -> RuntimeError:
        """What to raise for an error of rocksdict, which has no types for them. Damaged files are put aside."""
        path = self.partition_path(partition)
        for reason in _DISK_SAYS:
            if reason in str(error):
                return disk_error(path, reason)
        self.put_aside(partition, error)
        return BrokenStoreError(f"the local table of partition {partition} in {path} is damaged and was put aside: {error}")

    def _open_for_partition(self, partition: int) -> Any:
        try:
            return self._opened_whole(partition)
        except Exception as error:
            if _is_held(error):
                raise  # Faust tries again: another process is about to let go of it
            explained = self._explained(partition, error)
            if isinstance(explained, LocalDiskError):
                raise explained from error
        return super()._open_for_partition(partition)

    def _opened_whole(self, partition: int) -> Any:
        """The table of a partition. Raises where its list of files lost some: RocksDB takes one without its end for whole."""
        lost = self._unlisted(self.partition_path(partition))
        db = super()._open_for_partition(partition)  # while another process holds the table, what was seen is not judged
        if lost:
            db.close()
            raise BrokenStoreError(f"the MANIFEST does not list {', '.join(lost)}")
        return db

    def _unlisted(self, path: Path) -> list[str]:
        """The files of a table that its list should end with, and does not."""
        files = {file.name for file in path.glob("*.sst")}
        if not files or not (path / "CURRENT").exists():
            return sorted(files)  # without CURRENT a new table would be made in the place of theirs
        try:
            # To look only: an open table is compacted, and files come and go.
            look = rocksdict.Rdict(str(path), self.rocksdb_options.as_options(), access_type=rocksdict.AccessType.read_only())
        except Exception:  # noqa: BLE001 - why it cannot be opened is told when it is opened to be written
            return []
        listed = files & {Path(file["name"]).name for file in look.live_files()}
        look.close()
        newest = max((int(Path(name).stem) for name in listed), default=0)
        # Older ones are what a compaction has left behind.
        return sorted(name for name in files - listed if int(Path(name).stem) > newest)


def _is_held(error: Exception) -> bool:
    """Whether another process, or this one, has the table open."""
    text = repr(error)
    return "lock" in text.lower() and "LOCK" in text and not any(reason in text for reason in _DISK_SAYS)


STORES.aliases[SCHEME] = f"{AtomicStore.__module__}:{AtomicStore.__name__}"
