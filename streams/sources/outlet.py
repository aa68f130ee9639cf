"""From a server to Kafka without ever standing in the server's way."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
import time
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.settings import Settings
from streams.topics import EVENTS

QUEUE: Final = 10_000
BATCH: Final = 500
LINGER: Final = 0.02
RETRY: Final = 1.0
CLOSE: Final = 5.0
logger = logging.getLogger("tocsin.source")


class Sink(Protocol):
    """Takes events. It never blocks and never raises."""

    def offer(self, event: dict[str, Any]) -> None:
        """Take an event; never block, never raise."""
        ...


class Outlet:
    """A bounded queue and a thread that publishes it. What does not fit is dropped and counted, and the count is published."""

    def __init__(self, settings: Settings, *, service: str, tenant: str = "default", size: int = QUEUE) -> None:
        self._settings, self._service, self._tenant = settings, service, tenant
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(size)
        self._closing = threading.Event()
        self.dropped = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="tocsin-outlet", daemon=True)
        self._thread.start()

    def offer(self, event: dict[str, Any]) -> None:
        """Queue an event: tenant, service and source are filled in. Drops it where the queue is full."""
        try:
            self._queue.put_nowait({"tenant": self._tenant, "service": self._service, "src": "sdk"} | event)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = CLOSE) -> None:
        """Publish what is queued, for at most `timeout` seconds."""
        self._closing.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            asyncio.run(self._publish())
        except Exception:
            logger.exception("telemetry is no longer published")

    async def _publish(self) -> None:
        while not self._is_done():
            producer = AIOKafkaProducer(
                **self._settings.kafka_client(), acks="all", enable_idempotence=self._settings.fencing == "on", linger_ms=5
            )
            try:
                await producer.start()
                await self._pump(producer)
            except (KafkaError, OSError) as error:
                logger.warning("no telemetry goes out to %s: %s", self._settings.bootstrap_servers, error)
                if self._closing.is_set():
                    return
                await asyncio.sleep(RETRY)
            finally:
                await producer.stop()

    def _is_done(self) -> bool:
        return self._closing.is_set() and self._queue.empty()

    async def _pump(self, producer: AIOKafkaProducer) -> None:
        topic = self._settings.topic_prefix + EVENTS.name
        while not self._is_done():
            batch = self._take()
            if not batch:
                await asyncio.sleep(LINGER)
                continue
            sent = [
                await producer.send(topic, _encode(event), key=f"{event['tenant']}|{event['service']}".encode())
                for event in batch
            ]
            await asyncio.gather(*sent)

    def _take(self) -> list[dict[str, Any]]:
        batch: list[dict[str, Any]] = []
        if self.dropped > self._reported:
            batch.append({
                "tenant": self._tenant, "service": self._service, "src": "sdk", "kind": "perf", "ts": time.time_ns() // 1000,
                "dropped_events": self.dropped - self._reported,
            })  # fmt: skip
            self._reported = self.dropped
        while len(batch) < BATCH:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return batch


def _encode(event: dict[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in event.items() if value is not None}, separators=(",", ":")).encode()
