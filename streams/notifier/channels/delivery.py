"""One channel's consumer of `mcp.alerts`: in order per key, retried, its offsets committed when alerts are done with."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from schemas.alert import Alert, Reason
from schemas.time import MICROS
from streams.consumer import KafkaConsumer
from streams.notifier.channels.channel import Channel
from streams.notifier.channels.digest import Digest, Missed
from streams.notifier.channels.retry import Outcome, deliver_one
from streams.settings import Settings
from streams.topics import ALERTS

log = logging.getLogger("tocsin.channels")

LOOKBACK: Final = 5 * 60 * MICROS
"""A channel that has never run begins with the alerts of so many microseconds before."""
MAX_IN_FLIGHT: Final = 200
"""Alerts of one channel that are sent, wait for a retry, or wait for an earlier one of their key."""
MAX_SENDING: Final = 8
GRACE: Final = 5.0
"""Seconds that attempts under way have left when the worker stops."""
_POLL_MS: Final = 200
_METADATA_MS: Final = 2_000  # a topic that was created just now is found by the next refresh; aiokafka's is after 5 minutes
_NO_LIMIT_MS: Final = 2**31 - 1  # a full house waits for retries, not for a poll; the session tells that we live


class DeliveryObserver:
    """Told what becomes of alerts in channels. This one does nothing; what wants to know overrides."""

    def finished(self, channel: str, outcome: Outcome, since_dispatch: int) -> None:
        """An alert is done with, so many microseconds after it was appended to `mcp.alerts`."""

    def retried(self, channel: str) -> None:
        """An attempt failed and will be repeated."""

    def waiting(self, channel: str, number: int) -> None:
        """So many alerts are in flight."""


def wall_clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


async def deliver(
    channel: Channel,
    name: str,
    settings: Settings,
    stop: asyncio.Event,
    observer: DeliveryObserver | None = None,
    *,
    clock: Callable[[], int] = wall_clock,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Send the alerts that name the channel `name` until `stop` is set.

    Raises KafkaError if the broker cannot be reached at start, or refuses. Alerts not done with remain for the next run.
    """
    static = {"group_instance_id": f"{settings.instance}-channel-{name}"} if settings.instance else {}
    consumer = KafkaConsumer(
        **settings.kafka_client(),
        **static,
        group_id=f"{settings.group}-channel-{name}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(settings.session_timeout) * 1000,
        max_poll_interval_ms=_NO_LIMIT_MS,
        metadata_max_age_ms=_METADATA_MS,
    )
    await consumer.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            flights = _Flights(channel, name, consumer, tasks, stop, observer or DeliveryObserver(), clock, jitter)
            consumer.subscribe([settings.topic_prefix + ALERTS.name], listener=_Assignment(consumer, flights, clock))
            try:
                await _pump(consumer, flights, stop)
            finally:
                flights.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        await consumer.stop()


async def _pump(consumer: Any, flights: _Flights, stop: asyncio.Event) -> None:
    while not stop.is_set():
        flights.tell_missed()
        await flights.commit()
        if not await flights.wait_for_room():
            continue
        fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=flights.room)
        for partition, records in fetched.items():
            for record in records:
                flights.start(partition, record)
    await flights.land()


class _Flights:
    """Alerts under way. What was done with, up to the first that was not, is committed."""

    def __init__(
        self,
        channel: Channel,
        name: str,
        consumer: Any,
        tasks: asyncio.TaskGroup,
        stop: asyncio.Event,
        observer: DeliveryObserver,
        clock: Callable[[], int],
        jitter: Callable[[], float],
    ) -> None:
        self._channel, self.name, self._consumer, self._tasks, self._stop = channel, name, consumer, tasks, stop
        self._observer, self._clock, self._jitter = observer, clock, jitter
        self._sending = asyncio.Semaphore(MAX_SENDING)
        self._open: dict[TopicPartition, dict[int, asyncio.Task[None]]] = {}
        self._last_of_key: dict[tuple[TopicPartition, bytes | None], asyncio.Task[None]] = {}
        self._read: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._committing = asyncio.Lock()
        self._landed = asyncio.Event()
        self._missed = Missed(name)

    @property
    def is_stopped(self) -> bool:
        """Whether the worker stops."""
        return self._stop.is_set()

    @property
    def room(self) -> int:
        """How many more alerts may take off."""
        return MAX_IN_FLIGHT - len(self._all())

    async def wait_for_room(self) -> bool:
        """Wait a moment for room; whether there is some."""
        if self.room <= 0:
            self._landed.clear()
            await self._wait(self._landed, _POLL_MS / 1000)
        return self.room > 0

    def begin(self, partition: TopicPartition, offset: int) -> None:
        """Begin at `offset`, which is committed even if no alert comes."""
        self._read[partition] = offset

    def start(self, partition: TopicPartition, record: Any) -> None:
        """Send the alert of `record`, if it is for this channel, after the earlier ones of its key."""
        if partition not in self._read:
            return  # the client hands out records while the listener still looks for where to begin; it will seek back
        self._read[partition] = record.offset + 1
        try:
            alert = Alert.model_validate_json(record.value or b"")
        except ValidationError:
            log.error(
                "channel %s: no alert in %s/%d at offset %d", self.name, partition.topic, partition.partition, record.offset
            )
            self._observer.finished(self.name, Outcome.UNREADABLE, 0)
            return
        if self.name not in alert.channels:
            return
        if alert.reason is Reason.STALE:
            self._missed.add(partition, record.offset, alert, self._clock())
            self._observer.finished(self.name, Outcome.DIGESTED, self._clock() - record.timestamp * 1000)
            return
        key = (partition, record.key)
        task = self._tasks.create_task(self._fly(partition, record, alert, self._last_of_key.get(key)))
        self._open.setdefault(partition, {})[record.offset] = task
        self._last_of_key[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))
        self._observer.waiting(self.name, len(self._all()))

    def tell_missed(self) -> None:
        """Send the digest of stale alerts, if one is due."""
        now = self._clock()
        if not self._missed.is_due(now):
            return
        digest = self._missed.take()
        if digest is not None:
            self._tasks.create_task(self._tell_missed(digest, now))

    async def commit(self) -> None:
        """Commit what is done with. A failure costs a repetition after the next start, and is only logged."""
        async with self._committing:
            ahead = {}
            for partition, read in self._read.items():
                done = min(self._open.get(partition) or (read,))
                missed = self._missed.first(partition)
                done = done if missed is None else min(done, missed)
                if done > self._committed.get(partition, -1):
                    ahead[partition] = done
            if not ahead:
                return
            try:
                await self._consumer.commit(ahead)
            except KafkaError as error:
                log.warning("channel %s: offsets were not committed: %s", self.name, error)
            else:
                self._committed.update(ahead)

    async def land(self) -> None:
        """Give attempts under way a moment to end, and commit them."""
        if self._all():
            await asyncio.wait(self._all(), timeout=GRACE)
        await self.commit()

    def cancel(self, partitions: Sequence[TopicPartition] | None = None) -> None:
        """Give up what is under way (on `partitions`); it stays uncommitted."""
        for partition in list(self._read) if partitions is None else partitions:
            for task in self._open.pop(partition, {}).values():
                task.cancel()
            self._missed.forget(partition)
            self._read.pop(partition, None)
            self._committed.pop(partition, None)

    async def _fly(self, partition: TopicPartition, record: Any, alert: Alert, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        if self._stop.is_set():
            return
        if await self._deliver(alert, record.timestamp * 1000) is None:
            return
        del self._open[partition][record.offset]
        self._landed.set()
        self._observer.waiting(self.name, len(self._all()))
        await self.commit()

    async def _tell_missed(self, digest: Digest, at: int) -> None:
        if await self._deliver(digest, at) is not None:
            self._missed.done()

    async def _deliver(self, message: Alert | Digest, at: int) -> Outcome | None:
        outcome = await deliver_one(
            _Gate(self._channel, self._sending),
            self.name,
            message,
            dispatched_at=at,
            clock=self._clock,
            jitter=self._jitter,
            pause=self.pause,
            retried=lambda: self._observer.retried(self.name),
        )
        if outcome is not None:
            self._observer.finished(self.name, outcome, self._clock() - at)
        return outcome

    async def pause(self, wait: int) -> bool:
        """Wait so many microseconds; False if the worker stops meanwhile."""
        await self._wait(self._stop, wait / MICROS)
        return not self._stop.is_set()

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        await asyncio.wait([waiter := asyncio.ensure_future(event.wait())], timeout=seconds)
        waiter.cancel()

    def _forget(self, key: tuple[TopicPartition, bytes | None], task: asyncio.Task[None]) -> None:
        if self._last_of_key.get(key) is task:
            del self._last_of_key[key]

    def _all(self) -> list[asyncio.Task[None]]:
        return [task for flights in self._open.values() for task in flights.values()]


class _Gate:
    """A channel to which only so many alerts are sent at a time."""

    def __init__(self, channel: Channel, sending: asyncio.Semaphore) -> None:
        self._channel, self._sending = channel, sending

    async def send(self, message: Alert | Digest) -> None:
        async with self._sending:
            if isinstance(message, Digest):
                await self._channel.send_digest(message)
            else:
                await self._channel.send(message)


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Finds where to begin, and gives up what is under way on partitions that go to others."""

    def __init__(self, consumer: Any, flights: _Flights, clock: Callable[[], int]) -> None:
        self._consumer, self._flights, self._clock = consumer, flights, clock

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Begin where the group left off, and where it never was, LOOKBACK ago."""
        while not self._flights.is_stopped:
            try:
                places = await self._find(assigned)
            except KafkaError as error:  # the client would log it and go on, with nowhere to begin
                log.warning("channel %s: cannot find where to begin, trying again: %s", self._flights.name, error)
                await self._flights.pause(MICROS)
            else:
                for partition, offset in places.items():
                    self._consumer.seek(partition, offset)
                    self._flights.begin(partition, offset)
                return

    async def _find(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        places = {partition: await self._consumer.committed(partition) for partition in partitions}
        new = [partition for partition, place in places.items() if place is None]
        if new:
            since = max(0, (self._clock() - LOOKBACK) // 1000)
            found = await self._consumer.offsets_for_times(dict.fromkeys(new, since))
            ends = await self._consumer.end_offsets(new)
            for partition in new:
                place = found.get(partition)
                places[partition] = ends[partition] if place is None else place.offset
        return places

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Give up what is under way there."""
        self._flights.cancel(list(revoked))
