"""The table in RocksDB, with Faust's store under it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from streams.operations.metrics import Metrics
from streams.runtime.app import build_app
from streams.runtime.producer import BARRIER, Items, Outbox
from streams.runtime.staging import COMMIT, append_whole
from streams.runtime.store import AtomicStore, BrokenStoreError
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


async def test_a_table_that_cannot_be_read_is_put_aside_for_the_next_start(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.commit_batch(0, [(b"%06d" % number, b"v" * 100) for number in range(20_000)], 3)
    store._db_for_partition(0).flush()
    path = store.partition_path(0)
    await store.stop()
    for table in path.rglob("*.sst"):
        data = bytearray(table.read_bytes())
        data[1_000:2_000] = b"\xff" * 1_000
        table.write_bytes(data)
    store = store_in(tmp_path)
    with pytest.raises(BrokenStoreError, match="partition 0 is damaged and was put aside"):
        list(store.items_of(0))
    assert not path.exists()
    assert [other.name for other in path.parent.iterdir() if other.name.startswith(f"{path.name}.broken-")]


async def test_a_table_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    holder, other = store_in(tmp_path), store_in(tmp_path)
    holder.commit_batch(0, [(b"a", b"1")], 3)
    with pytest.raises(Exception, match=r"(?i)lock"):
        other.changelog_offset(0)
    assert not [path for path in other.partition_path(0).parent.iterdir() if "broken" in path.name]
