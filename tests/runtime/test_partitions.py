"""Taking over, folding and letting go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from faust.types import TP

from streams.operations.metrics import Metrics
from streams.records import Incoming, Outgoing
from streams.runtime.app import ReplacedLogError, check_end
from streams.runtime.checkpoint import AbandonedError
from streams.runtime.partitions import NotRecoveredError, Partitions, spans
from tests.runtime.counting import CountingFold, restore
from tests.runtime.fakes import World, records


def partitions_of(world: World, metrics: Metrics | None = None) -> Partitions:
    return Partitions(
        "engine", restore, journal=world, sender=world, metrics=metrics or Metrics(),
        marked=lambda partition, marker: world.markers.append(marker),
    )  # fmt: skip


async def test_former_owners_are_shut_out_before_anything_is_read() -> None:
    world = World()
    partitions = partitions_of(world)
    assert await partitions.take_over([0, 1], 1, world, world.recover)
    assert world.said == ["claim", "recover", "restore", "restore"]
    assert partitions.is_ready
    assert partitions.applied() == {0: -1, 1: -1}


async def test_a_partition_that_is_not_recovered_to_its_end_is_not_opened() -> None:
    world = World()
    world.log += [(b"a", b"1")] * 5

    async def too_early(numbers: list[int]) -> dict[int, int]:
        world.offset = 3
        return dict.fromkeys(numbers, 5)

    partitions = partitions_of(world)
    with pytest.raises(NotRecoveredError, match="partition 0 is recovered to changelog offset 3, not to 4"):
        await partitions.take_over([0], 1, world, too_early)
    assert partitions.applied() == {}
    await partitions.process(0, 1, records(0, 5))
    assert partitions.applied() == {}


async def test_records_of_another_assignment_are_left_out() -> None:
    """One that was fetched before a rebalance may come after it, and what lies between would be lost."""
    world = World()
    partitions = partitions_of(world)
    await partitions.take_over([0], 7, world, world.recover)
    await partitions.process(0, 6, records(0, 5))
    await partitions.process(1, 7, records(0, 5))
    assert partitions.applied() == {0: -1}
    await partitions.process(0, 7, records(0, 5))
    assert partitions.applied() == {0: 5}


async def test_finish_saves_and_drop_forgets() -> None:
    world = World()
    partitions = partitions_of(world)
    await partitions.take_over([0], 1, world, world.recover)
    await partitions.process(0, 1, records(0, 5))
    partitions.suspend()
    await partitions.finish()
    partitions.drop()
    assert world.markers == [5]
    assert not partitions.is_ready
    assert partitions.applied() == {}
    await partitions.take_over([0], 2, world, world.recover)
    assert partitions.applied() == {0: 5}
    assert partitions.folds()[0].cells == {b"k": (6, 6)}  # type: ignore[attr-defined]


async def test_an_error_is_told_and_ends_all_work() -> None:
    world = World()
    partitions = partitions_of(world)
    await partitions.take_over([0], 1, world, world.recover)
    world.broken = "send"
    await partitions.process(0, 1, records(0, 99))
    with pytest.raises(RuntimeError, match="send is broken"):
        await partitions.failure
    world.broken = ""
    await partitions.process(0, 1, records(100, 120))
    await partitions.finish()
    assert partitions.applied() == {0: 99}
    assert world.markers == []


async def test_changes_are_saved_within_about_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.partitions.CHECKPOINT_EVERY", 0.1)
    world = World()
    partitions = partitions_of(world)
    await partitions.take_over([0], 1, world, world.recover)
    running = asyncio.ensure_future(partitions.run())
    await partitions.process(0, 1, records(0, 5))
    assert world.markers == []
    async with asyncio.timeout(5):
        while world.markers != [5]:
            await asyncio.sleep(0.01)
    world.broken = "append"
    await partitions.process(0, 1, records(6, 7))
    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="append is broken"):
            await partitions.failure
    running.cancel()


async def test_a_partition_that_is_taken_away_while_it_is_restored_is_not_opened() -> None:
    world = World()

    async def slow(_partition: int, items: Iterable[tuple[bytes, bytes]], abandoned: asyncio.Event) -> CountingFold:
        await abandoned.wait()
        raise AbandonedError("no longer wanted")

    partitions = Partitions("engine", slow, journal=world, sender=world, metrics=Metrics(), marked=lambda *_: None)
    opening = asyncio.ensure_future(partitions.take_over([0], 1, world, world.recover))
    await asyncio.sleep(0.01)
    partitions.suspend()
    assert await opening is False
    assert partitions.applied() == {}


async def test_brokers_that_are_away_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.partitions.FIRST_WAIT", 0.001)
    world = World()
    partitions = partitions_of(world)
    waited: list[bool] = []

    async def recover(numbers: list[int]) -> dict[int, int]:
        waited.append(partitions.waits_for_brokers)
        if len(waited) < 3:
            raise KafkaConnectionError("no broker")
        return await world.recover(numbers)

    assert await partitions.take_over([0], 1, world, recover)
    assert world.claims == [[0]] * 3  # the offset of the barrier must be one that this recovery has seen
    assert waited == [True] * 3
    assert not partitions.waits_for_brokers


async def test_a_broker_that_refuses_is_not_waited_for() -> None:
    world = World()

    async def recover(_numbers: list[int]) -> dict[int, int]:
        raise TopicAuthorizationFailedError("state")

    with pytest.raises(TopicAuthorizationFailedError):
        await partitions_of(world).take_over([0], 1, world, recover)


async def test_a_partition_that_waits_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.partitions.CHECKPOINT_EVERY", 0.01)
    world, go_on = World(), asyncio.Event()

    class Waiting(CountingFold):
        async def process(self, records: Sequence[Incoming]) -> Sequence[Outgoing]:
            if len(records) > 1 and self.applied >= 0:
                await go_on.wait()
            return await super().process(records)

    async def restore(_partition: int, _items: Iterable[tuple[bytes, bytes]], _abandoned: asyncio.Event) -> CountingFold:
        return Waiting()

    marked: list[tuple[int, int]] = []
    partitions = Partitions(
        "engine", restore, journal=world, sender=world, metrics=Metrics(), marked=lambda *mark: marked.append(mark)
    )
    await partitions.take_over([0, 1], 1, world, world.recover)
    running = asyncio.ensure_future(partitions.run())
    await partitions.process(0, 1, records(0, 0))
    stuck = asyncio.ensure_future(partitions.process(0, 1, records(1, 9)))
    await asyncio.sleep(0.2)
    await partitions.process(1, 1, records(0, 0))
    async with asyncio.timeout(5):
        while (1, 0) not in marked:
            await asyncio.sleep(0.01)
    assert not stuck.done()
    go_on.set()
    await stuck
    async with asyncio.timeout(5):
        while (0, 9) not in marked:
            await asyncio.sleep(0.01)
    running.cancel()


async def test_chunks_that_wait_for_the_one_before_are_no_gap() -> None:
    world, metrics = World(), Metrics()
    partitions = partitions_of(world, metrics)
    await partitions.take_over([0], 1, world, world.recover)
    await partitions.process(0, 1, records(0, 5))
    await asyncio.gather(*[partitions.process(0, 1, records(first, first + 999)) for first in (6, 1006, 2006)])
    assert partitions.applied() == {0: 3005}
    assert not metrics.registry.get_sample_value("tocsin_missing_records_total", {"role": "engine"})


async def test_records_that_are_missing_in_the_log_are_counted() -> None:
    world, metrics = World(), Metrics()
    partitions = partitions_of(world, metrics)
    await partitions.take_over([0], 1, world, world.recover)
    await partitions.process(0, 1, records(2, 5))  # where nothing was folded yet, nothing is missing
    await partitions.process(0, 1, records(9, 10))
    await partitions.process(0, 1, records(11, 12))
    assert metrics.registry.get_sample_value("tocsin_missing_records_total", {"role": "engine"}) == 3


def test_a_log_that_ends_before_the_state_is_refused() -> None:
    check_end(TP("mcp.events", 2), -1, 0)
    check_end(TP("mcp.events", 2), 9, 10)
    with pytest.raises(ReplacedLogError, match=r"mcp.events\[2\] ends at offset 9, and its state holds records up to 9"):
        check_end(TP("mcp.events", 2), 9, 9)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], "no partitions"), ([3], "partition 3"), ([0, 1, 2, 6], "partitions 0-2, 6"), ([0, 2, 4], "partitions 0, 2, 4")],
)
def test_spans(numbers: list[int], text: str) -> None:
    assert spans(numbers) == text
