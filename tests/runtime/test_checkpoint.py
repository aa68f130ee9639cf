"""The protocol of one partition: what happens in which order, and what does not happen after an error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from streams.records import Incoming, Outgoing
from streams.runtime.checkpoint import FIRST_STEP, FULL, MAX_STEP, AbandonedError, CancelledWaitError, Partition
from tests.runtime.counting import CountingFold
from tests.runtime.fakes import World, records


def partition_of(world: World, fold: CountingFold | None = None) -> Partition:
    return Partition(
        3,
        fold or CountingFold(world.held.items()),
        journal=world,
        table=world,
        sender=world,
        saved=world.saved,
        clock=lambda: 5.0,
    )


async def test_a_checkpoint_is_written_after_the_acks_and_acknowledged_last() -> None:
    world = World()
    partition = partition_of(world)
    assert await partition.process(records(0, 149)) == 150
    assert world.said == ["send"]
    assert partition.dirty_since == 5.0
    await partition.checkpoint()
    assert world.said == ["send", "append 3", "table", "saved"]
    assert world.markers == [149]
    assert [partition.dirty_since] == [None]
    await partition.checkpoint()
    assert world.markers == [149]


async def test_the_state_is_not_stored_before_what_it_led_to_is() -> None:
    world = World()
    world.acknowledges = False
    partition = partition_of(world)
    await partition.process(records(0, 99))
    saving = asyncio.ensure_future(partition.checkpoint())
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.said == ["send"]
    world.acks[0].set_result(None)
    await saving
    assert world.said == ["send", "append 3", "table", "saved"]


async def test_records_that_were_folded_are_skipped() -> None:
    world = World()
    partition = partition_of(world)
    await partition.process(records(0, 9))
    await partition.checkpoint()
    again = partition_of(world)
    assert again.next_offset == 10
    assert await again.process(records(5, 12)) == 3
    assert await again.process(records(0, 12)) == 0
    await again.checkpoint()
    assert CountingFold(world.held.items()).cells == {b"k": (13, 13)}


@pytest.mark.parametrize("step", ["send", "append", "table", "saved"])
async def test_after_an_error_nothing_more_is_stored(step: str) -> None:
    world = World()
    partition = partition_of(world)
    await partition.process(records(0, 98))
    world.broken = step

    async def go_on() -> None:
        await partition.process(records(99, 99))
        await partition.checkpoint()

    with pytest.raises(RuntimeError, match=step):
        await go_on()
    world.broken, before = "", list(world.said)
    await partition.checkpoint()
    await partition.wake(1)
    assert world.said == before


async def test_a_failed_ack_fails_the_checkpoint() -> None:
    world = World()
    world.acknowledges = False
    partition = partition_of(world)
    await partition.process(records(0, 99))
    world.acks[0].set_exception(RuntimeError("not stored"))
    with pytest.raises(RuntimeError, match="not stored"):
        await partition.checkpoint()
    assert world.log == []
    await partition.checkpoint()
    assert world.log == []


async def test_a_wait_that_is_cancelled_is_an_error_where_nobody_cancelled_the_task() -> None:
    """A task that ends as cancelled ends silently, and the partition would fold on and never be saved."""
    world = World()
    world.acknowledges = False
    partition = partition_of(world)
    await partition.process(records(0, 99))
    world.acks[0].cancel()
    with pytest.raises(CancelledWaitError):
        await partition.checkpoint()


async def test_a_task_that_is_cancelled_ends_as_cancelled() -> None:
    world = World()
    world.acknowledges = False
    partition = partition_of(world)
    await partition.process(records(0, 99))
    saving = asyncio.ensure_future(partition.checkpoint())
    await asyncio.sleep(0)
    saving.cancel()
    await asyncio.wait([saving])
    assert saving.cancelled()


async def test_a_crash_between_any_two_steps_counts_every_record_once() -> None:
    for broken in ("append", "table", "saved"):
        world = World()
        first = partition_of(world)
        await first.process(records(0, 9))
        await first.checkpoint()
        await first.process(records(10, 19))
        world.broken = broken
        with pytest.raises(RuntimeError):
            await first.checkpoint()
        world.broken = ""
        # The next owner recovers from the changelog, whatever the table says.
        recovered = {key: value for key, value in world.log if value is not None}
        fold = CountingFold(recovered.items())
        await partition_of(world, fold).process(records(0, 29))
        assert fold.cells == {b"k": (30, 30)}, broken


class Growing(CountingFold):
    """Every record makes a key of its own, which takes `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.steps: list[int] = []
        self.most = 0

    @property
    def dirty_bytes(self) -> int:
        return self.size * len(self._dirty)

    async def process(self, chunk: Sequence[Incoming]) -> Sequence[Outgoing]:
        for record in chunk:
            self._dirty.add(b"%d" % record.offset)
            self.cells[b"%d" % record.offset] = 1, 1
        self.applied = chunk[-1].offset
        self.steps.append(len(chunk))
        self.most = max(self.most, self.dirty_bytes)
        return ()


async def test_a_chunk_is_checkpointed_within_when_its_state_is_large() -> None:
    world, fold = World(), Growing(20_000)
    partition = partition_of(world, fold)
    await partition.process(records(0, 1_999))
    assert len(world.markers) >= 1_999 * 20_000 // (2 * FULL)
    assert fold.most < 2 * FULL
    assert world.markers[-1] < 1_999
    await partition.checkpoint()
    assert world.markers[-1] == 1_999
    assert world.markers == sorted(world.markers)


async def test_steps_begin_small_and_grow_while_the_state_does_not() -> None:
    world, fold = World(), Growing(0)
    await partition_of(world, fold).process(records(0, 40_000))
    assert fold.steps[:3] == [FIRST_STEP, 2 * FIRST_STEP, 4 * FIRST_STEP]
    assert max(fold.steps) == MAX_STEP
    assert sum(fold.steps) == 40_001


class Waiting(CountingFold):
    """Is to be given up at offset 10."""

    async def process(self, chunk: Sequence[Incoming]) -> Sequence[Outgoing]:
        if chunk[-1].offset >= 10:
            raise AbandonedError("goes to another worker")
        return await super().process(chunk)


async def test_what_was_folded_before_a_partition_was_abandoned_is_saved() -> None:
    world = World()
    partition = partition_of(world, Waiting())
    await partition.process(records(0, 9))
    with pytest.raises(AbandonedError):
        await partition.process(records(10, 19))
    await partition.checkpoint()
    assert world.markers == [9]


class Alarm(CountingFold):
    """Has something to say when it is woken at 100."""

    async def wake(self, now: int) -> Sequence[Outgoing]:
        if now < 100:
            return ()
        self._dirty.add(b"rang")
        self.cells[b"rang"] = now, now
        return [Outgoing("t", b"k", b"ring")]


async def test_what_a_wake_leads_to_is_sent_and_saved() -> None:
    world = World()
    partition = partition_of(world, Alarm())
    await partition.wake(99)
    assert partition.dirty_since is None
    await partition.wake(100)
    assert [outgoing.value for outgoing in world.sent] == [b"ring"]
    await partition.checkpoint()
    assert b"rang" in world.held


async def settle() -> None:
    """Let everything go on until it waits for something."""
    for _ in range(200):
        await asyncio.sleep(0)


class Gated(CountingFold):
    """Folds from offset 10 on when it is let, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.go, self.error = asyncio.Event(), error

    async def process(self, records: Sequence[Incoming]) -> Sequence[Outgoing]:
        if records[0].offset >= 10:
            await self.go.wait()
            if self.error is not None:
                raise self.error
        return await super().process(records)


async def test_the_last_checkpoint_waits_for_the_chunks_that_are_here_and_nothing_is_folded_after_it() -> None:
    world, fold = World(), Gated()
    partition = partition_of(world, fold)
    await partition.process(records(0, 9))
    chunks = [asyncio.create_task(partition.process(records(first, first + 9))) for first in (10, 20)]
    await settle()
    finishing = asyncio.create_task(partition.finish())
    await settle()
    late = asyncio.create_task(partition.process(records(30, 39)))
    await settle()
    assert world.markers == []
    fold.go.set()
    await asyncio.gather(*chunks, finishing)
    with pytest.raises(AbandonedError):
        await late
    assert (world.markers, fold.applied) == ([29], 29)


@pytest.mark.parametrize(("error", "markers"), [(AbandonedError("goes to another worker"), [9]), (RuntimeError("broken"), [])])
async def test_a_chunk_that_waits_behind_one_that_was_not_folded_is_not_folded(error: Exception, markers: list[int]) -> None:
    """It would pass over the records of the one before, and the marker would say that they were counted."""
    world, fold = World(), Gated(error)
    partition = partition_of(world, fold)
    await partition.process(records(0, 9))
    chunks = [asyncio.create_task(partition.process(records(first, first + 9))) for first in (10, 20)]
    await settle()
    fold.go.set()
    outcomes = await asyncio.gather(*chunks, return_exceptions=True)
    await partition.finish()
    assert [type(outcome) for outcome in outcomes] == [type(error), AbandonedError]
    assert (fold.applied, fold.cells, world.markers) == (9, {b"k": (10, 10)}, markers)
