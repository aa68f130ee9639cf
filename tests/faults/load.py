"""Telemetry from a seed, at a rate that does not wait for anybody: failing and slow stretches, silences, misplaced events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.partitioner import event_key, partition_of
from streams.settings import Settings
from streams.topics import EVENTS

SERVICES: Final = 40
TOOLS: Final = ("read", "write")
STRETCH: Final = 3.0
"""Seconds for which a service fails, is slow, is silent, or is well."""
MISPLACED: Final = 0.03
ARRAYS: Final = 0.05
LAG: Final = 1.5
"""Seconds by which an event may be older than its record."""
_LONGEST_BEHIND: Final = 1.0


@dataclass
class Load:
    """Sends events; `acked` counts the records that the brokers said they have, `failed` those they did not."""

    topic: str
    partitions: int
    producer: AIOKafkaProducer
    random: random.Random
    sent: int = 0
    acked: int = 0
    failed: int = 0
    _pending: set[asyncio.Future[Any]] = field(default_factory=set)

    async def run(self, seconds: float, rate: float) -> None:
        """`rate` events a second for `seconds`, by the clock: what is late is sent at once."""
        began, due = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            wanted = int(passed * rate)
            if wanted - due > rate * _LONGEST_BEHIND:  # the broker is away and the buffer is full
                due = wanted - int(rate * _LONGEST_BEHIND)
            while due < wanted:
                due += 1
                await self.send(time.time())
            await asyncio.sleep(0.01)

    async def burst(self, number: int, seconds: float) -> None:
        """`number` events as fast as the broker takes them, of the last `seconds`: a backlog."""
        began = time.time() - seconds
        for at in range(number):
            await self.send(began + seconds * at / number)
        await self.flush()

    async def send(self, now: float) -> None:
        """One record of about `now`: an event, or an array of some."""
        service = self._service(now)
        events = [self._event(service, now) for _ in range(self.random.randrange(2, 5))] if self._chance(ARRAYS) else None
        value = json.dumps(events if events is not None else self._event(service, now)).encode()
        tenant = tenant_of(service)
        home = partition_of(tenant, service, self.partitions)
        misplaced = self._chance(MISPLACED)
        partition = self.random.randrange(self.partitions) if misplaced else home
        key = None if misplaced else event_key(tenant, service)
        self.sent += len(events) if events is not None else 1
        with contextlib.suppress(KafkaError):
            sent = await self.producer.send(self.topic, value, key=key, partition=partition)
            self._pending.add(sent)
            sent.add_done_callback(self._done)

    async def end(self, running: asyncio.Task[None]) -> None:
        """Stop `running`, which sends, and wait for what it has sent."""
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Wait until the brokers have everything, or have refused it."""
        while self._pending:
            await asyncio.wait(list(self._pending))

    def _done(self, sent: asyncio.Future[Any]) -> None:
        self._pending.discard(sent)
        if sent.cancelled() or sent.exception() is not None:
            self.failed += 1
        else:
            self.acked += 1

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _service(self, now: float) -> str:
        while True:
            number = self.random.randrange(SERVICES)
            if self._mood(number, now) != "silent":
                return f"service-{number}"

    def _event(self, service: str, now: float) -> dict[str, Any]:
        mood = self._mood(int(service.removeprefix("service-")), now)
        failing = self._chance(0.8 if mood == "failing" else 0.05)
        usual = 100_000 if mood == "slow" else 10_000
        return {
            "ts": int((now - self.random.random() * LAG) * 1e6),
            "kind": "operation",
            "tenant": tenant_of(service),
            "service": service,
            "tool": self.random.choice(TOOLS),
            "outcome": "tool_error" if failing else "ok",
            "dur_us": int(self.random.gauss(usual, usual / 10)),
        }

    @staticmethod
    def _mood(number: int, now: float) -> str:
        stretch = int(now / STRETCH)
        return ("well", "failing", "well", "slow", "well", "silent", "silent")[(number * 5 + stretch) % 7]


def tenant_of(service: str) -> str:
    """Every service belongs to one of two tenants."""
    return f"tenant-{int(service.removeprefix('service-')) % 2}"


@contextlib.asynccontextmanager
async def open_load(settings: Settings, seed: int, partitions: int) -> AsyncIterator[Load]:
    """A load on the event topic of `settings`. Its producer is idempotent, so that nothing is there twice or out of order."""
    producer = AIOKafkaProducer(**settings.kafka_client(), linger_ms=3, enable_idempotence=settings.fencing == "on", acks="all")
    await producer.start()
    try:
        yield Load(settings.topic_prefix + EVENTS.name, partitions, producer, random.Random(seed))
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await producer.stop()
