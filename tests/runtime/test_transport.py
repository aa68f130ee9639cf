"""What is fetched next while folds are busy, or wait."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from streams.runtime.transport import Consumer

A, B, C = (TP("mcp.events", number) for number in range(3))


def consumer_with(*outstanding: tuple[TP, int]) -> Any:
    """What the choice of the next fetch looks at; `fetched` lists the partitions of each."""
    fetched: list[set[TP]] = []

    async def getmany(active_partitions: set[TP], timeout: float) -> dict[TP, list[Any]]:  # noqa: ASYNC109 - as Faust calls it
        fetched.append(active_partitions)
        return {}

    return SimpleNamespace(
        _outstanding=set(outstanding), _slow=set(), _progress=asyncio.Event(), _linger=0.0, flow_active=True, should_stop=False,
        _get_active_partitions=lambda: {A, B, C}, _getmany=getmany, fetched=fetched,
    )  # fmt: skip


async def fetch(consumer: Any) -> None:
    async with asyncio.timeout(5):
        await Consumer._wait_next_records(consumer, 0)


async def test_folds_that_are_nearly_done_get_more_of_everything() -> None:
    consumer = consumer_with((A, 5))
    await fetch(consumer)
    assert consumer.fetched == [{A, B, C}]


async def test_a_partition_whose_fold_waits_is_left_out_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.transport.SLOW", 0.01)
    consumer = consumer_with((A, 5), (B, 7))
    await fetch(consumer)
    assert consumer.fetched == [{C}]
    consumer._outstanding.add((C, 9))
    await fetch(consumer)  # one that is folded now is not one that waits
    assert consumer.fetched == [{C}, {C}]
    Consumer.done(consumer, A, 5)
    await fetch(consumer)
    assert consumer.fetched[2] == {A, C}


async def test_what_is_folded_is_waited_for() -> None:
    consumer = consumer_with((A, 5), (B, 7))
    fetching = asyncio.create_task(fetch(consumer))
    await asyncio.sleep(0.05)
    assert consumer.fetched == []
    Consumer.done(consumer, B, 7)
    await fetching
    assert consumer.fetched == [{A, B, C}]
