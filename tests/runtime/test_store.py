"""The table in RocksDB, with Faust's store under it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faust.stores.rocksdb
import pytest
import rocksdict

from streams.operations.metrics import Metrics
from streams.runtime.app import build_app
from streams.runtime.producer import BARRIER, Items, Outbox
from streams.runtime.staging import COMMIT, append_whole
from streams.runtime.store import AtomicStore, BrokenStoreError, LocalDiskError
from streams.settings import Settings
from streams.topics import CHECKPOINT_LIMIT, ENGINE, changelog_name
from tests.runtime.counting import restore
from tests.runtime.fakes import Record


def store_in(folder: Path) -> AtomicStore:
    settings = replace(Settings(), data_dir=str(folder))
    app = build_app(settings, ENGINE, restore, partitions=2, outbox=Outbox(settings, Metrics()), metrics=Metrics())
    app.finalize()
    app._create_directories()
    assert app.table.changelog_topic.get_topic_name() == changelog_name(settings.group, ENGINE)
    return app.store


async def test_a_batch_holds_data_and_offset(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert store.changelog_offset(1) is None
    store.commit_batch(1, [(b"a", b"1"), (b"b", b"1"), (BARRIER, b"x")], 7)
    store.commit_batch(1, [(b"b", None), (b"c", b"")], 9)
    assert store.changelog_offset(1) == 9
    assert dict(store.items_of(1)) == {b"a": b"1", b"c": b""}
    assert dict(store.items_of(0)) == {}
    assert store.unfinished(1) is None


async def test_records_of_the_changelog_are_applied_as_they_stand(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.apply_records(0, [Record(0, b"a", b"1"), Record(1, b"a", None), Record(2, b"b", b"2"), Record(3, None, b"?")], 3)
    assert dict(store.items_of(0)) == {b"b": b"2"}
    assert store.changelog_offset(0) == 3
    assert store.holds(0, Record(2, b"b", b"2"))
    assert store.holds(0, Record(2, b"a", None))
    assert not store.holds(0, Record(2, b"b", b"3"))
    store.apply_records(0, [], 8)
    assert store.changelog_offset(0) == 8


async def test_the_parts_of_a_large_checkpoint_count_once_it_is_committed(tmp_path: Path) -> None:
    @dataclass
    class Log:
        records: list[Record]

        async def append(self, partition: int, items: Items) -> int:
            for key, value in items:
                self.records.append(Record(len(self.records), key, value))
            return len(self.records) - 1

    log = Log([])
    items: list[tuple[bytes, bytes | None]] = [(b"%07d" % number, b"v" * 1_000) for number in range(CHECKPOINT_LIMIT // 800)]
    await append_whole(log, 0, items)
    commit = next(at for at, record in enumerate(log.records) if record.key == COMMIT)
    store = store_in(tmp_path)
    store.apply_records(0, log.records[:commit], commit - 1)
    assert dict(store.items_of(0)) == {}
    store.apply_records(0, log.records[commit : commit + 1], commit)
    assert dict(store.items_of(0)) == dict(items)
    unfinished = store.unfinished(0)
    assert unfinished is not None
    assert dict(unfinished[0]) == dict(items)
    store.apply_records(0, log.records[commit + 1 :], len(log.records) - 1)
    assert dict(store.items_of(0)) == dict(items)
    assert store.unfinished(0) is None


async def test_a_table_that_cannot_be_opened_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_in(tmp_path)
    store.commit_batch(0, [(b"a", b"1")], 3)
    path = store.partition_path(0)
    await store.stop()
    (path / "CURRENT").write_bytes(b"nonsense")
    store = store_in(tmp_path)
    with caplog.at_level(logging.WARNING, "tocsin.runtime"):
        assert store.changelog_offset(0) is None
    assert "partition 0: local table put aside as" in caplog.text
    assert len(list(path.parent.glob(f"{path.name}.broken-*"))) == 1
    store.commit_batch(0, [(b"a", b"2")], 4)
    assert dict(store.items_of(0)) == {b"a": b"2"}


async def test_a_table_that_cannot_be_read_is_put_aside_and_can_be_filled_anew(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    path = filled(store)
    await store.stop()
    for table in path.glob("*.sst"):
        data = bytearray(table.read_bytes())
        if len(data) < 10_000:
            continue  # its end is what is read when the table is opened
        data[1_000:2_000] = b"\xff" * 1_000
        table.write_bytes(data)
    store = store_in(tmp_path)
    with pytest.raises(BrokenStoreError, match=r"the local table of partition 0 in .* is damaged and was put aside"):
        list(store.items_of(0))
    assert not path.exists()
    assert len(aside(path)) == 1
    store.commit_batch(0, [(b"a", b"2")], 4)
    assert dict(store.items_of(0)) == {b"a": b"2"}


def filled(store: AtomicStore) -> Path:
    """Two table files, and a batch after them that is in the write-ahead log only."""
    for number in range(2):
        store.commit_batch(0, [(b"%d-%06d" % (number, row), b"v" * 100) for row in range(5_000)], number)
        store._db_for_partition(0).flush()
    store.commit_batch(0, [(b"last", b"1")], 2)
    return store.partition_path(0)


def aside(path: Path) -> list[Path]:
    return [other for other in path.parent.iterdir() if other.name.startswith(f"{path.name}.broken-")]


def truncate(path: Path, part: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * part))


def delete(path: Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in path.glob(pattern):
            file.unlink()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "an SST truncated": lambda path: truncate(next(path.glob("*.sst")), 0.5),
    "the SSTs gone": lambda path: delete(path, "*.sst"),
    "CURRENT deleted": lambda path: delete(path, "CURRENT"),
    "CURRENT empty": lambda path: truncate(path / "CURRENT", 0),
    "CURRENT and the write-ahead log deleted": lambda path: delete(path, "CURRENT", "*.log"),
    "MANIFEST deleted": lambda path: delete(path, "MANIFEST-*"),
    "MANIFEST of nonsense": lambda path: next(path.glob("MANIFEST-*")).write_bytes(b"\xff" * 200),
    "MANIFEST without its end": lambda path: truncate(next(path.glob("MANIFEST-*")), 0.9),
    "MANIFEST without its half": lambda path: truncate(next(path.glob("MANIFEST-*")), 0.6),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_seen_and_never_taken_for_less_state(
    damage: Callable[[Path], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, copy = tmp_path / "held", tmp_path / "copy"
    path = filled(store_in(folder))
    shutil.copytree(folder, copy)  # as kill -9 leaves it
    broken = copy / path.relative_to(folder)
    damage(broken)
    store = store_in(copy)
    assert store.changelog_offset(0) is None
    assert dict(store.items_of(0)) == {}
    assert f"local table put aside as {broken}.broken-" in caplog.text
    assert len(aside(broken)) == 1


async def test_a_table_that_was_killed_is_taken_as_it_is(tmp_path: Path) -> None:
    path = filled(store_in(tmp_path / "held"))
    shutil.copytree(tmp_path / "held", tmp_path / "copy")
    store = store_in(tmp_path / "copy")
    assert store.changelog_offset(0) == 2
    assert len(dict(store.items_of(0))) == 10_001
    assert not aside(tmp_path / "copy" / path.relative_to(tmp_path / "held"))


async def test_a_table_that_would_be_compacted_when_it_is_opened_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = rocksdict.Rdict

    def slowly(*arguments: Any, **options: Any) -> Any:
        db = opened(*arguments, **options)
        time.sleep(0.2)  # a compaction of four small files takes less
        return db

    monkeypatch.setattr(rocksdict, "Rdict", slowly)
    monkeypatch.setattr(faust.stores.rocksdb, "DB", slowly)
    for number in range(6):
        store = store_in(tmp_path)
        assert store.changelog_offset(0) == (number - 1 if number else None)
        store.commit_batch(0, [(b"%06d" % row, b"%d" % number) for row in range(100)], number)
        await store.stop()  # writes a file
    assert dict(store_in(tmp_path).items_of(0)) == {b"%06d" % row: b"5" for row in range(100)}
    assert not aside(store.partition_path(0))


async def test_tables_that_were_put_aside_do_not_pile_up(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for number in range(3):
        store.commit_batch(0, [(b"a", b"%d" % number)], number)
        store.put_aside(0, "a test")
    store.commit_batch(1, [(b"a", b"1")], 1)
    store.put_aside(1, "a test")
    (left,) = aside(store.partition_path(0))
    (store.partition_path(0).parent / left.name).rename(store.partition_path(0))
    assert dict(store.items_of(0)) == {b"a": b"2"}  # the last one
    assert len(aside(store.partition_path(1))) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 300 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("mounting takes root")
    mount("-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


async def test_a_full_disk_is_named_and_its_tables_stay(small_disk: Path) -> None:
    store = store_in(small_disk)
    store.commit_batch(0, [(b"a", b"1")], 1)
    path = store.partition_path(0)
    with pytest.raises(LocalDiskError, match=f"the local state in {path} cannot be used: No space left on device. Make room"):
        store.commit_batch(0, [(b"b", b"v" * 1_000_000)], 2)
    await store.stop()
    mount("-o", "remount,size=8m", str(small_disk))
    store = store_in(small_disk)
    assert dict(store.items_of(0)) == {b"a": b"1"}
    assert store.changelog_offset(0) == 1


async def test_a_full_disk_is_named_when_a_table_is_opened(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 250_000)
    with pytest.raises(LocalDiskError, match="No space left on device"):
        store_in(small_disk).commit_batch(0, [(b"b", b"v" * 100_000)], 2)


async def test_a_disk_that_cannot_be_written_is_named_and_its_tables_stay(small_disk: Path) -> None:
    store = store_in(small_disk)
    store.commit_batch(0, [(b"a", b"1")], 1)
    await store.stop()
    mount("-o", "remount,ro", str(small_disk))
    held = store.partition_path(0)
    with pytest.raises(LocalDiskError, match="Read-only file system"):
        store.changelog_offset(0)
    assert held.exists()
    assert not aside(held)


async def test_a_table_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    holder, other = store_in(tmp_path), store_in(tmp_path)
    holder.commit_batch(0, [(b"a", b"1")], 3)
    with pytest.raises(Exception, match=r"(?i)lock"):
        other.changelog_offset(0)
    assert not [path for path in other.partition_path(0).parent.iterdir() if "broken" in path.name]
