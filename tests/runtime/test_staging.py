"""Checkpoints beyond the size of a batch: whole or not at all, wherever the worker dies."""

from __future__ import annotations

import contextlib

import pytest

from streams.runtime import producer, staging
from streams.runtime.producer import Items, fits, size_of
from streams.runtime.staging import COMMIT, append_whole, complete, staged

LIMIT = 4_000


class DiedError(RuntimeError):
    pass


class Log:
    """A changelog that stores so many batches, and then its writer dies."""

    def __init__(self, batches: int = 1_000) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.left = batches

    async def append(self, partition: int, items: Items) -> int:
        assert fits(items)
        if not self.left:
            raise DiedError
        self.left -= 1
        self.records += items
        return len(self.records) - 1

    def state(self) -> dict[bytes, bytes]:
        """What recovery makes of it."""
        held: dict[bytes, bytes] = {}
        for key, value in self.records:
            _write(held, [(key, value)])
            if key == COMMIT and value is not None:
                _write(held, staged(value, held.get)[0])
        return held


def _write(held: dict[bytes, bytes], items: Items) -> None:
    for key, value in items:
        if value is None:
            held.pop(key, None)
        else:
            held[key] = value


def visible(held: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: value for key, value in held.items() if not key.startswith(b"\0")}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "CHECKPOINT_LIMIT", LIMIT)
    monkeypatch.setattr(staging, "_ROOM", LIMIT - 1_024)


OLD = {b"gone": b"x", b"key-000": b"old"}
ITEMS: list[tuple[bytes, bytes | None]] = [(b"gone", None), *((b"key-%03d" % number, b"v" * 60) for number in range(200))]
NEW = {key: value for key, value in ITEMS if value is not None}


async def test_what_fits_is_one_batch() -> None:
    log = Log()
    assert await append_whole(log, 0, ITEMS[:10]) == 9
    assert log.records == ITEMS[:10]


async def test_what_does_not_fit_is_written_in_many_and_leaves_nothing_behind() -> None:
    log = Log()
    log.records = list(OLD.items())
    assert size_of(ITEMS) > LIMIT
    assert await append_whole(log, 0, ITEMS) == len(log.records) - 1
    assert log.state() == NEW
    compacted = dict(log.records)
    assert {key: value for key, value in compacted.items() if value is not None} == NEW


@pytest.mark.parametrize("batches", range(1, 20))
async def test_it_counts_whole_or_not_at_all_wherever_its_writer_dies(batches: int) -> None:
    log = Log(batches)
    log.records = list(OLD.items())
    with contextlib.suppress(DiedError):
        await append_whole(log, 0, ITEMS)
    held = log.state()
    assert visible(held) in (OLD, NEW)
    commit = held.get(COMMIT)
    log.left = 1_000
    if commit is not None:
        assert visible(held) == NEW
        await complete(log, 0, *staged(commit, held.get))
        assert visible(log.state()) == NEW
        assert COMMIT not in log.state()
    # A later one is not disturbed by what was left of this.
    later: list[tuple[bytes, bytes | None]] = [(b"later-%03d" % number, b"w" * 60) for number in range(150)]
    await append_whole(log, 0, later)
    assert visible(log.state()) == visible(held) | dict(later)


async def test_the_deaths_above_cover_every_step() -> None:
    log = Log()
    await append_whole(log, 0, ITEMS)
    assert 1_000 - log.left < 20


async def test_parts_that_compaction_removed_are_left_to_the_items_that_follow() -> None:
    assert staged(b"3", lambda _: None) == ([], 3)
