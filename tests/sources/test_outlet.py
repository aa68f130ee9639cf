"""The outlet never stands in the way, and counts what it drops. A stand-in for the producer needs no broker."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from schemas.event import Event, parse_event
from streams.settings import Settings, SettingsError
from streams.sources import outlet as module
from streams.sources.outlet import Outlet, source_settings

TS = 1_767_225_600_000_000


class Broker:
    """What producers reach, and how it behaves."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, Event]] = []
        self.away = False
        self.gate = threading.Event()
        self.gate.set()
        self.fails: Callable[[Event], str | None] = lambda event: None
        self.made: list[dict[str, Any]] = []
        self.stopped = 0

    def producer(self, **options: Any) -> Producer:
        self.made.append(options)
        return Producer(self)


class Producer:
    """Does what the outlet needs of an AIOKafkaProducer."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def start(self) -> None:
        if self._broker.away:
            raise KafkaConnectionError("nobody there")

    async def stop(self) -> None:
        self._broker.stopped += 1

    async def send(self, topic: str, value: bytes, *, key: bytes) -> asyncio.Future[None]:
        while not self._broker.gate.is_set():
            await asyncio.sleep(0.005)
        event, answer = parse_event(value), asyncio.get_running_loop().create_future()
        how = self._broker.fails(event)
        if how == "send":
            raise KafkaTimeoutError("no metadata")
        if how == "answer":
            answer.set_exception(KafkaTimeoutError("no answer"))
        else:
            self._broker.records.append((topic, key, event))
            answer.set_result(None)
        return answer

    async def send_and_wait(self, topic: str, value: bytes, *, key: bytes) -> None:
        await (await self.send(topic, value, key=key))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    made = Broker()
    monkeypatch.setattr(module, "AIOKafkaProducer", made.producer)
    monkeypatch.setattr(module, "RETRY", 0.02)
    yield made
    made.gate.set()
    made.away = False


def event(number: int) -> dict[str, Any]:
    return {"kind": "operation", "ts": TS + number, "dur_us": number}


def until(holds: Callable[[], bool], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def sent(broker: Broker) -> list[int | None]:
    return [each.dur_us for _, _, each in broker.records if each.kind == "operation"]


def reported(broker: Broker) -> list[int | None]:
    return [each.dropped_events for _, _, each in broker.records if each.kind == "perf"]


def test_publishes_in_order_under_the_key_of_its_service(broker: Broker) -> None:
    outlet = Outlet(Settings(topic_prefix="x."), service="files", tenant="t1")
    for number in range(1_200):
        outlet.offer(event(number))
    outlet.close()
    assert sent(broker) == list(range(1_200))
    assert {(topic, key) for topic, key, _ in broker.records} == {("x.mcp.events", b"t1|files")}
    assert {(each.tenant, each.service, each.src) for _, _, each in broker.records} == {("t1", "files", "sdk")}
    assert (outlet.dropped, reported(broker), broker.stopped) == (0, [], 1)


def test_leaves_out_what_is_not_known() -> None:
    assert json.loads(module._record({"tenant": "t", "service": "s", "ts": 1, "tool": None})[1]) == {
        "tenant": "t", "service": "s", "ts": 1,
    }  # fmt: skip


def test_a_full_queue_drops_counts_and_reports(broker: Broker) -> None:
    broker.gate.clear()
    outlet = Outlet(Settings(), service="files", size=10)
    outlet.offer(event(0))
    until(outlet._queue.empty)  # the first one waits in the producer
    for number in range(1, 41):
        outlet.offer(event(number))
    assert outlet.dropped == 30
    broker.gate.set()
    until(lambda: bool(reported(broker)))
    outlet.offer(event(99))
    outlet.close()
    assert sent(broker) == [*range(11), 99]
    assert reported(broker) == [30]


def test_what_is_dropped_last_is_reported_when_it_closes(broker: Broker) -> None:
    broker.gate.clear()
    outlet = Outlet(Settings(), service="files", size=1)
    outlet.offer(event(0))
    until(outlet._queue.empty)
    for number in (1, 2, 3):
        outlet.offer(event(number))
    threading.Timer(0.05, broker.gate.set).start()
    outlet.close()
    assert (sent(broker), reported(broker)) == ([0, 1], [2])


def test_a_broker_that_is_away_never_blocks_the_server(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    broker.away = True
    outlet = Outlet(Settings(), service="files", size=100)
    slowest = 0.0
    for number in range(5_000):
        started = time.perf_counter()
        outlet.offer(event(number))
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1
    assert outlet.dropped == 4_900
    until(lambda: len(broker.made) >= 3)
    assert broker.stopped >= 2
    broker.away = False
    outlet.close()
    assert sent(broker) == list(range(100))
    assert reported(broker) == [4_900]
    assert "no telemetry goes out to 127.0.0.1:9092: KafkaConnectionError: nobody there" in caplog.text


def test_closes_in_time_while_the_broker_is_away(broker: Broker) -> None:
    broker.away = True
    outlet = Outlet(Settings(), service="files")
    outlet.offer(event(0))
    outlet.close()
    assert not outlet._thread.is_alive()


def test_closes_in_time_while_the_broker_hangs(broker: Broker) -> None:
    broker.gate.clear()
    outlet = Outlet(Settings(), service="files")
    outlet.offer(event(0))
    started = time.monotonic()
    outlet.close(0.1)
    assert time.monotonic() - started < 5
    broker.gate.set()
    outlet.close()


@pytest.mark.parametrize("how", ["send", "answer"])
def test_what_is_not_acknowledged_counts_as_dropped(broker: Broker, how: str) -> None:
    failing = [3]
    broker.fails = lambda each: how if each.dur_us in failing else None
    broker.gate.clear()
    outlet = Outlet(Settings(), service="files")
    for number in range(6):
        outlet.offer(event(number))
    broker.gate.set()
    until(lambda: sum(each or 0 for each in reported(broker)) + len(sent(broker)) == 6)
    failing.clear()
    outlet.offer(event(6))
    outlet.close()
    assert set(range(7)) - set(sent(broker)) >= {3}
    assert len(sent(broker)) == len(set(sent(broker))) == 7 - outlet.dropped
    assert sum(each or 0 for each in reported(broker)) == outlet.dropped
    assert outlet.dropped == 1 or how == "send"


def test_a_report_that_fails_is_made_again(broker: Broker) -> None:
    refused: list[Event] = []

    def fails(each: Event) -> str | None:
        if each.kind == "perf" and len(refused) < 2:
            refused.append(each)
            return "answer"
        return None

    broker.fails = fails
    outlet = Outlet(Settings(), service="files")
    outlet._drop(7)
    until(lambda: bool(reported(broker)))
    outlet.close()
    assert reported(broker) == [7]
    assert outlet.dropped == 7


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_an_event_that_is_no_json_is_dropped_alone(broker: Broker, value: object, caplog: pytest.LogCaptureFixture) -> None:
    outlet = Outlet(Settings(), service="files")
    outlet.offer(event(1))
    outlet.offer(event(2) | {"detail": value})
    outlet.offer(event(3))
    outlet.close()
    assert sent(broker) == [1, 3]
    assert (outlet.dropped, reported(broker)) == (1, [1])
    assert "no JSON" in caplog.text


@pytest.mark.parametrize(("fencing", "idempotent"), [("on", True), ("off", False)])
def test_the_producer_is_idempotent_unless_the_broker_cannot(broker: Broker, fencing: str, idempotent: bool) -> None:
    outlet = Outlet(Settings(fencing=fencing), service="s")
    outlet.offer(event(1))
    outlet.close()
    assert [(made["enable_idempotence"], made["acks"]) for made in broker.made] == [(idempotent, "all")]


def test_a_thread_that_fails_says_so_and_goes_on_counting(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    def fails(each: Event) -> str | None:
        raise RuntimeError("a defect")

    broker.fails = fails
    outlet = Outlet(Settings(), service="files", size=5)
    outlet.offer(event(0))
    until(lambda: not outlet._thread.is_alive())
    with caplog.at_level(logging.ERROR):
        for number in range(10):
            outlet.offer(event(number))
    assert "telemetry is no longer published" in caplog.text
    assert outlet.dropped == 1 + 5


def test_offers_from_many_threads_are_all_counted(broker: Broker) -> None:
    broker.away = True
    outlet = Outlet(Settings(), service="files", size=50)

    def offer() -> None:
        for number in range(500):
            outlet.offer(event(number))

    threads = [threading.Thread(target=offer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outlet.dropped == 8 * 500 - 50
    outlet.close()


def test_a_source_needs_and_keeps_no_control_key() -> None:
    for given in ({}, {"TOCSIN_CONTROL_KEY": "the real one"}):
        settings = source_settings({"TOCSIN_BOOTSTRAP_SERVERS": "kafka.example:9092", "PATH": "/bin"} | given)
        assert settings.bootstrap_servers == "kafka.example:9092"
        assert "the real one" not in repr(settings)
    with pytest.raises(SettingsError, match="TOCSIN_MADE_UP"):
        source_settings({"TOCSIN_MADE_UP": "1"})
