"""A channel's consumer on a real broker: order per key, retries, commits, restarts."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from schemas.alert import Alert, Reason
from schemas.time import MICROS
from streams.consumer import KafkaConsumer
from streams.notifier.channels import delivery, digest
from streams.notifier.channels.channel import Rejected, Retryable
from streams.notifier.channels.delivery import DeliveryObserver, deliver, wall_clock
from streams.notifier.channels.digest import Digest
from streams.notifier.channels.retry import Outcome
from streams.settings import Settings
from streams.topics import ALERTS
from tests.conftest import Topics
from tests.notifier.cases import Episode

pytestmark = pytest.mark.integration


@dataclass
class Receiver:
    """A channel that keeps what it was sent; an alert whose service or id is in `broken` fails with that error."""

    broken: dict[str, Exception] = field(default_factory=dict)
    sent: list[Alert] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    digests: list[Digest] = field(default_factory=list)

    async def send(self, alert: Alert) -> None:
        self.attempts[alert.source] += 1
        for name in (alert.source, alert.id):
            if name in self.broken:
                raise self.broken[name]
        self.sent.append(alert)

    async def send_digest(self, digest: Digest) -> None:
        self.attempts["digest"] += 1
        if "digest" in self.broken:
            raise self.broken["digest"]
        self.digests.append(digest)

    async def close(self) -> None:
        pass

    def told(self) -> list[tuple[str, str]]:
        return [(alert.source, alert.status) for alert in self.sent]


class Seen(DeliveryObserver):
    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.most = 0

    def waiting(self, channel: str, number: int) -> None:
        self.most = max(self.most, number)

    def finished(self, channel: str, outcome: Outcome, since_dispatch: int) -> None:
        assert channel == "hook"
        assert 0 <= since_dispatch < 60 * MICROS
        self.outcomes.append(outcome)


@dataclass
class Publisher:
    producer: AIOKafkaProducer
    topic: str

    async def publish(self, *values: Alert | bytes) -> None:
        for value in values:
            raw = value if isinstance(value, bytes) else value.model_dump_json().encode()
            key = None if isinstance(value, bytes) else value.key.encode()
            await self.producer.send_and_wait(self.topic, raw, key)


@pytest.fixture
async def publisher(settings: Settings, topics: Topics) -> AsyncIterator[Publisher]:
    await topics.create(partitions=2, topics=(ALERTS,), changelogs=False)
    topic = settings.topic_prefix + ALERTS.name
    async with AIOKafkaProducer(**settings.kafka_client(), metadata_max_age_ms=100) as producer:
        # A consumer that found one of them first would be rebalanced in the middle of the test.
        while len(await producer.partitions_for(topic)) < 2:
            await asyncio.sleep(0.02)
        yield Publisher(producer, topic)


@asynccontextmanager
async def running(settings: Settings, receiver: Receiver, seen: Seen | None = None, **options: object) -> AsyncIterator[None]:
    """The channel `hook` delivers, with retries at once, until the end of the block."""
    stop = asyncio.Event()
    task = asyncio.create_task(deliver(receiver, "hook", settings, stop, seen, jitter=lambda: 0.01, **options))  # type: ignore[arg-type]
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def pair(service: str, channels: tuple[str, ...] = ("hook",)) -> tuple[Alert, Alert]:
    episode = Episode(service=service, channels=channels)
    return episode.fire(), episode.resolve()


async def test_alerts_that_name_the_channel_are_sent_in_order(settings: Settings, publisher: Publisher) -> None:
    receiver, seen = Receiver(), Seen()
    await publisher.publish(*pair("a"), *pair("other", ("log",)), b"no alert")
    async with running(settings, receiver, seen):
        await until(lambda: len(seen.outcomes) == 3)
        await publisher.publish(*pair("b"))
        await until(lambda: len(receiver.sent) == 4)
    assert receiver.told() == [("a", "firing"), ("a", "resolved"), ("b", "firing"), ("b", "resolved")]
    assert sorted(seen.outcomes) == [Outcome.DELIVERED] * 4 + [Outcome.UNREADABLE]
    again = Receiver()
    async with running(settings, again):
        await publisher.publish(*pair("c"))
        await until(lambda: len(again.sent) == 2)
    assert again.told() == [("c", "firing"), ("c", "resolved")], "what was done with is not sent again"


async def test_an_alert_that_fails_delays_its_own_key_only(settings: Settings, publisher: Publisher) -> None:
    fired, resolved = pair("a")
    receiver = Receiver({fired.id: Retryable("503")})
    async with running(settings, receiver):
        await publisher.publish(fired, resolved, *(alert for number in range(20) for alert in pair(f"s{number}")))
        await until(lambda: len(receiver.sent) == 40 and receiver.attempts["a"] > 2)
        receiver.broken.clear()
        await until(lambda: len(receiver.sent) == 42)
    assert receiver.told()[-2:] == [("a", "firing"), ("a", "resolved")]


async def test_an_alert_that_was_not_done_with_is_sent_after_a_restart(settings: Settings, publisher: Publisher) -> None:
    receiver = Receiver({"a": Retryable("503")})
    async with running(settings, receiver):
        await publisher.publish(*pair("a"))
        await until(lambda: receiver.attempts["a"] > 1)
    again = Receiver()
    async with running(settings, again):
        await until(lambda: len(again.sent) == 2)
    assert again.told() == [("a", "firing"), ("a", "resolved")]


async def test_a_rejected_alert_is_done_with(settings: Settings, publisher: Publisher) -> None:
    receiver, seen = Receiver({"a": Rejected("400")}), Seen()
    async with running(settings, receiver, seen):
        await publisher.publish(*pair("a"))
        await until(lambda: len(seen.outcomes) == 2)
    assert seen.outcomes == [Outcome.REJECTED] * 2
    assert receiver.attempts["a"] == 2
    again = Receiver()
    async with running(settings, again):
        await publisher.publish(*pair("b"))
        await until(lambda: len(again.sent) == 2)
    assert again.attempts["a"] == 0


async def test_stale_alerts_are_told_of_in_one_digest_and_not_one_by_one(
    settings: Settings, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "QUIET", 300_000)
    receiver, seen = Receiver({"digest": Retryable("503")}), Seen()
    stale = [stale_of(alert) for number in range(12) for alert in pair(f"s{number}")[: 2 if number < 9 else 1]]
    async with running(settings, receiver, seen):
        await publisher.publish(*stale, *pair("fresh"))
        await until(lambda: receiver.attempts["digest"] > 1)
    assert receiver.told() == [("fresh", "firing"), ("fresh", "resolved")]
    again = Receiver()
    async with running(settings, again):  # what was not told of is read again
        await until(lambda: bool(again.digests))
    async with running(settings, receiver):
        await publisher.publish(*pair("later"))
        await until(lambda: ("later", "resolved") in receiver.told())
    (told,) = again.digests
    assert told.text.startswith("while 11 min behind: 12 alerts, 9 already resolved; still firing: tool-error-rate acme/s")
    assert not receiver.digests, "what was told of is done with"


def stale_of(alert: Alert) -> Alert:
    details = alert.details | ({"age": 11 * 60 * MICROS} if alert.status == "firing" else {})
    return alert.model_copy(update={"reason": Reason.STALE, "details": details})


async def test_what_is_in_flight_is_bounded(settings: Settings, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MAX_IN_FLIGHT", 5)
    receiver, seen = Receiver({f"s{number}": Retryable("503") for number in range(20)}), Seen()
    async with running(settings, receiver, seen):
        await publisher.publish(*(pair(f"s{number}")[0] for number in range(20)))
        await until(lambda: seen.most == 5 and max(receiver.attempts.values()) > 3)
        receiver.broken.clear()
        await until(lambda: len({alert.id for alert in receiver.sent}) == 20)
    assert seen.most == 5


async def test_a_new_channel_begins_with_the_last_minutes_and_remembers_where(settings: Settings, publisher: Publisher) -> None:
    await publisher.publish(*pair("old"))
    later = lambda: wall_clock() + 2 * delivery.LOOKBACK  # noqa: E731 - a clock
    first = Receiver()
    async with running(settings, first, clock=later):
        await asyncio.sleep(1)  # long enough to be assigned, and to have sent what it should not
    await publisher.publish(*pair("while away"))
    again = Receiver()
    async with running(settings, again, clock=later):
        await until(lambda: len(again.sent) >= 2)
    assert first.told() == []
    assert again.told() == [("while away", "firing"), ("while away", "resolved")]


async def test_what_is_fetched_before_the_beginning_is_found_is_not_sent(
    settings: Settings, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    find, seek = KafkaConsumer.offsets_for_times, KafkaConsumer.seek
    broken, begun = [KafkaTimeoutError(), KafkaTimeoutError()], set()

    async def slow(*args: object) -> object:
        await asyncio.sleep(0.3)  # the client's fetches go on meanwhile
        if broken:
            raise broken.pop()
        return await find(*args)

    def seen(consumer: KafkaConsumer, partition: TopicPartition, offset: int) -> None:
        begun.add(partition)
        seek(consumer, partition, offset)

    monkeypatch.setattr(KafkaConsumer, "offsets_for_times", slow)
    monkeypatch.setattr(KafkaConsumer, "seek", seen)
    await publisher.publish(*pair("old"))
    receiver = Receiver()
    async with running(settings, receiver, clock=lambda: wall_clock() + 2 * delivery.LOOKBACK):
        await until(lambda: len(begun) == 2)
        await publisher.publish(*pair("new"))
        await until(lambda: len(receiver.sent) >= 2)
    assert receiver.told() == [("new", "firing"), ("new", "resolved")]


async def test_two_workers_share_the_partitions(settings: Settings, publisher: Publisher) -> None:
    one, two = Receiver(), Receiver()
    async with running(settings, one):
        await publisher.publish(*pair("a"))
        await until(lambda: len(one.sent) == 2)
        async with running(settings, two):
            number, deadline = 0, time.monotonic() + 20
            while not two.sent:
                assert time.monotonic() < deadline
                number += 1
                await publisher.publish(*pair(f"s{number}"))
                await asyncio.sleep(0.1)
            await until(lambda: len({alert.id for alert in (*one.sent, *two.sent)}) == 2 * (number + 1))
        await publisher.publish(*pair("last"))
        await until(lambda: ("last", "resolved") in one.told())
