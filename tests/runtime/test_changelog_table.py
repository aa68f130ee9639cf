"""The table of a partition as its changelog has it, large checkpoints among what is in it."""

from __future__ import annotations

import msgspec

from streams.runtime.changelog_table import ChangelogTable, applied_of
from streams.runtime.producer import BARRIER
from streams.runtime.staging import COMMIT, ERASED
from tests.runtime.fakes import Record


def table_of(*items: tuple[bytes | None, bytes | None]) -> ChangelogTable:
    table = ChangelogTable()
    for offset, (key, value) in enumerate(items):
        table.fold(Record(offset, key, value))
    return table


def test_the_last_value_of_a_key_counts_and_what_is_the_runtimes_is_left_out() -> None:
    table = table_of((b"a", b"1"), (BARRIER, b"x"), (b"b", b"1"), (None, b"x"), (b"a", b"2"), (b"b", None))
    assert (table.items, table.unfinished) == ({b"a": b"2"}, ())


def test_a_large_checkpoint_counts_from_its_commit_on() -> None:
    part = (b"\0part/00000000", msgspec.msgpack.encode([(b"a", b"2"), (b"b", None), (b"m", b"x")]))
    before = ((b"a", b"1"), (b"b", b"1"), part)
    assert table_of(*before).items == {b"a": b"1", b"b": b"1"}
    counted = table_of(*before, (COMMIT, b"1"))
    assert (counted.items, counted.unfinished) == ({b"a": b"2", b"m": b"x"}, ERASED)
    assert table_of(*before, (COMMIT, b"1"), (COMMIT, None), (part[0], None)).unfinished == ()


def test_a_marker_that_cannot_be_read_says_nothing() -> None:
    marker = msgspec.msgpack.encode([1, 41, 0])
    assert applied_of({b"m": marker}) == 41
    for broken in ({}, {b"m": b"\xc1"}, {b"m": msgspec.msgpack.encode([1])}, {b"m": msgspec.msgpack.encode({"a": 1})}):
        assert applied_of(broken) is None
