"""Recovery of local tables from a changelog that is compacted, expired, cut, replaced, or of one record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from streams.fetched import Fetched
from streams.runtime.app import LostStateError, ReplacedLogError, check_end, check_lost
from streams.runtime.recovery import RecoveryError, _Reading
from tests.runtime.fakes import Record

PLACE = TopicPartition("changelog", 0)


@dataclass
class Consumer:
    """Gives the records of a log whose offsets may have holes; `end` may lie beyond the last of them."""

    records: list[Record]
    begin: int
    end: int
    at: int = 0
    unreadable: tuple[int, ...] = ()

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at = offset

    def pause(self, place: TopicPartition) -> None:
        pass

    async def position(self, place: TopicPartition) -> int:
        return self.at

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[TopicPartition, Fetched]:
        found = Fetched.of([record for record in self.records if record.offset >= self.at][:2])
        self.at = found[-1].offset + 1 if found else self.end
        return {PLACE: replace(found, unreadable=self.unreadable)} if found else {}


@dataclass
class Tables:
    """A local table in memory."""

    rows: dict[bytes, bytes] = field(default_factory=dict)
    offset: int | None = None
    aside: list[str] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)

    def changelog_offset(self, partition: int) -> int | None:
        return self.offset

    def apply_records(self, partition: int, records: Sequence[Any], upto: int) -> None:
        self.writes.append(len(records))
        for record in records:
            if record.value is None:
                self.rows.pop(record.key, None)
            else:
                self.rows[record.key] = record.value
        self.offset = upto

    def holds(self, partition: int, record: Any) -> bool:
        return bool(self.rows.get(record.key) == record.value)

    def put_aside(self, partition: int, reason: object) -> None:
        self.rows, self.offset = {}, None
        self.aside.append(str(reason))


async def recovered(tables: Tables, *records: Record, begin: int = 0, end: int | None = None) -> Consumer:
    consumer = Consumer(list(records), begin, records[-1].offset + 1 if end is None else end)
    await _Reading(consumer, "engine", {PLACE: 0}, {PLACE: begin}, {PLACE: consumer.end}, tables, lambda: None).run()
    return consumer


async def test_a_log_of_one_record() -> None:
    tables = Tables()
    for _ in range(2):
        await recovered(tables, Record(0, b"a", b"1"))
        assert (tables.rows, tables.offset, tables.aside) == ({b"a": b"1"}, 0, [])
    assert tables.writes == [1, 1]  # offset 0 is an offset: nothing is written once more to reach it


async def test_a_log_whose_records_were_all_compacted_away_behind_the_first() -> None:
    tables = Tables()
    await recovered(tables, Record(0, b"a", b"1"), end=9)
    assert (tables.rows, tables.offset) == ({b"a": b"1"}, 8)


async def test_a_log_that_ends_in_a_tombstone_and_holes() -> None:
    tables = Tables({b"a": b"0", b"b": b"1"}, 2)
    await recovered(tables, Record(2, b"b", b"1"), Record(5, b"a", None), end=8)
    assert (tables.rows, tables.offset, tables.aside) == ({b"b": b"1"}, 7, [])


async def test_a_table_ahead_of_the_log_is_put_aside() -> None:
    tables = Tables({b"a": b"9"}, 9)
    await recovered(tables, Record(0, b"a", b"1"), Record(1, b"b", b"1"))
    assert (tables.rows, tables.offset) == ({b"a": b"1", b"b": b"1"}, 1)
    assert tables.aside == ["it holds changelog offset 9, and the changelog ends at 1"]


async def test_a_table_of_another_log_is_put_aside() -> None:
    tables = Tables({b"a": b"other"}, 1)
    await recovered(tables, Record(0, b"b", b"1"), Record(1, b"a", b"1"), Record(2, b"c", b"1"))
    assert (tables.rows, tables.offset) == ({b"a": b"1", b"b": b"1", b"c": b"1"}, 2)
    assert tables.aside == ["it contradicts the changelog at offset 1"]


@pytest.mark.parametrize("tables", [Tables(), Tables({b"a": b"1"}, 1), Tables({b"a": b"other"}, 4)], ids=["none", "old", "other"])
async def test_a_log_whose_beginning_expired_is_no_source_of_a_state(tables: Tables) -> None:
    with pytest.raises(RecoveryError, match=r"changelog\[0\] begins at offset 3: records before it expired .* TOCSIN_GROUP"):
        await recovered(tables, Record(4, b"b", b"1"), begin=3, end=6)


async def test_a_table_that_holds_what_expired_goes_on() -> None:
    tables = Tables({b"a": b"1"}, 3)
    await recovered(tables, Record(3, b"a", b"1"), Record(4, b"b", b"1"), begin=3)
    assert (tables.rows, tables.offset, tables.aside) == ({b"a": b"1", b"b": b"1"}, 4, [])


def test_a_state_that_is_gone_is_made_again_from_a_whole_log_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    place = TP("mcp.events", 2)
    with caplog.at_level(logging.WARNING):
        check_lost(place, None, 5, "changelog")  # a new group
        check_lost(place, 0, 5, "changelog")
        assert not caplog.records
        check_lost(place, 7, 0, "changelog")
    assert "changelog[2] holds no state, and records of mcp.events[2] up to 6 were processed" in caplog.text
    assert "The log is whole, so the state is made again from it" in caplog.text
    with pytest.raises(LostStateError, match=r"The log begins at offset 5, .* set a new TOCSIN_GROUP"):
        check_lost(place, 7, 5, "changelog")


def test_a_source_that_ends_before_what_was_folded_is_another_log() -> None:
    check_end(TP("mcp.events", 0), 4, 5)
    with pytest.raises(ReplacedLogError, match="was deleted and created again"):
        check_end(TP("mcp.events", 0), 5, 5)


async def test_a_batch_that_cannot_be_read_is_no_empty_record() -> None:
    tables = Tables()
    consumer = Consumer([Record(0, b"a", b"1"), Record(1, None, None)], 0, 2, unreadable=(1,))
    with pytest.raises(RecoveryError, match="holds a batch that cannot be read"):
        await _Reading(consumer, "engine", {PLACE: 0}, {PLACE: 0}, {PLACE: 2}, tables, lambda: None).run()
    assert tables.offset is None


async def test_a_recovery_waits_for_brokers_and_not_for_a_log_that_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.recovery.STALLED_AFTER", 0.0)

    class Silent(Consumer):
        asked = 0

        async def getmany(self, *_places: Any, **_options: Any) -> dict[Any, Any]:
            await asyncio.sleep(0.001)
            return {}

        async def end_offsets(self, _places: Any) -> dict[Any, int]:
            self.asked += 1
            if self.asked < 3:
                raise KafkaConnectionError("no broker")
            return {PLACE: 5}

    consumer = Silent([], 0, 5)
    with pytest.raises(RecoveryError, match="no record of"):
        await _Reading(consumer, "engine", {PLACE: 0}, {PLACE: 0}, {PLACE: 5}, Tables(), lambda: None).run()
    assert consumer.asked == 3
