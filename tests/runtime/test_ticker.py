from __future__ import annotations

from schemas.control import HEADER, Tick, parse_control
from streams.records import Outgoing
from streams.runtime.ticker import IDLE, Ticker


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[Outgoing] = []
        self.ticker = Ticker(self.send, lambda: self.now)

    async def send(self, tick: Outgoing) -> None:
        self.sent.append(tick)

    async def after(self, seconds: float, applied: dict[int, int], lag: dict[int, int]) -> list[int | None]:
        self.now += seconds
        self.sent.clear()
        await self.ticker.look(applied, lag)
        return [tick.partition for tick in self.sent]


async def test_an_idle_partition_gets_a_tick_each_second() -> None:
    bench = Bench()
    assert await bench.after(0, {0: 5, 1: 7}, {0: 0, 1: 0}) == []
    assert await bench.after(IDLE / 2, {0: 5, 1: 8}, {0: 0, 1: 0}) == []
    assert await bench.after(IDLE / 2, {0: 5, 1: 8}, {0: 0, 1: 0}) == [0]
    tick = bench.sent[0]
    assert tick.topic == "mcp.events"
    assert tick.headers[0][0] == HEADER
    assert parse_control(tick.headers[0][1]) == Tick()
    # Not again before the tick itself has come, or a second has passed.
    assert await bench.after(IDLE / 4, {0: 5, 1: 8}, {0: 1, 1: 0}) == []
    assert await bench.after(IDLE / 4, {0: 6, 1: 8}, {0: 0, 1: 0}) == [1]
    assert await bench.after(IDLE / 2, {0: 6, 1: 8}, {0: 0, 1: 1}) == []
    assert await bench.after(IDLE / 2, {0: 6, 1: 9}, {0: 0, 1: 0}) == [0]


async def test_a_partition_with_a_backlog_or_of_unknown_end_gets_none() -> None:
    bench = Bench()
    await bench.after(0, {0: 5, 1: 5}, {0: 3})
    assert await bench.after(10, {0: 5, 1: 5}, {0: 3}) == []
    assert await bench.after(0.1, {0: 5, 1: 5}, {0: 0}) == [0]


async def test_a_partition_that_comes_back_starts_its_second_anew() -> None:
    bench = Bench()
    await bench.after(0, {0: 5}, {0: 0})
    await bench.after(0.1, {}, {})
    assert await bench.after(5, {0: 5}, {0: 0}) == []
    assert await bench.after(IDLE, {0: 5}, {0: 0}) == [0]
