"""From a server to Kafka without ever standing in the server's way."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
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


def offer_safely(sink: Sink, event: dict[str, Any]) -> None:
    """Offer an event, also to a sink that breaks its promise: telemetry must not break an answer."""
    try:
        sink.offer(event)
    except Exception:
        logger.exception("an event is lost")


def source_settings(environment: Mapping[str, str]) -> Settings:
    """The settings of a source: those of a worker without the control key, which a server that is watched must not know.

    Raises SettingsError as Settings.from_environment does.
    """
    return replace(Settings.from_environment(environment), control_key="")


class Outlet:
    """A bounded queue and a thread that publishes it. What does not fit is dropped and counted, and the count is published."""

    def __init__(self, settings: Settings, *, service: str, tenant: str = "default", size: int = QUEUE) -> None:
        self._settings, self._service, self._tenant = settings, service, tenant
        self._topic = settings.topic_prefix + EVENTS.name
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(size)
        self._closing = threading.Event()
        self._count = threading.Lock()
        self.dropped = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="tocsin-outlet", daemon=True)
        self._thread.start()

    def offer(self, event: dict[str, Any]) -> None:
        """Queue an event: tenant, service and source are filled in. Drops it where the queue is full."""
        try:
            self._queue.put_nowait(self._own() | event)
        except queue.Full:
            self._drop(1)

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
        return self._closing.is_set() and self._queue.empty() and self.dropped == self._reported

    async def _pump(self, producer: AIOKafkaProducer) -> None:
        while not self._is_done():
            await self._report(producer)
            records = self._take()
            if records:
                await self._deliver(producer, records)
            else:
                await asyncio.sleep(LINGER)

    async def _report(self, producer: AIOKafkaProducer) -> None:
        """Publish how many events were dropped since the last report."""
        dropped = self.dropped - self._reported
        if dropped:
            event = self._own() | {"v": 1, "kind": "perf", "ts": time.time_ns() // 1000, "dropped_events": dropped}
            key, value = _record(event)
            await producer.send_and_wait(self._topic, value, key=key)
            self._reported += dropped

    async def _deliver(self, producer: AIOKafkaProducer, records: list[tuple[bytes, bytes]]) -> None:
        """Send `records`. What is not acknowledged counts as dropped: sent again, it might be there twice."""
        sent: list[asyncio.Future[Any]] = []
        answers: list[Any] = []
        try:
            for key, value in records:
                sent.append(await producer.send(self._topic, value, key=key))
        finally:
            answers = await asyncio.gather(*sent, return_exceptions=True)
            self._drop(len(records) - sum(not isinstance(answer, BaseException) for answer in answers))
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    def _take(self) -> list[tuple[bytes, bytes]]:
        records: list[tuple[bytes, bytes]] = []
        while len(records) < BATCH:
            try:
                records.append(_record(self._queue.get_nowait()))
            except queue.Empty:
                break
            except (TypeError, ValueError):
                logger.exception("an event that is no JSON is dropped")
                self._drop(1)
        return records

    def _own(self) -> dict[str, Any]:
        return {"tenant": self._tenant, "service": self._service, "src": "sdk"}

    def _drop(self, number: int) -> None:
        with self._count:
            self.dropped += number


def _record(event: dict[str, Any]) -> tuple[bytes, bytes]:
    """Key and value."""
    fields = {name: value for name, value in event.items() if value is not None}
    value = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()
    return f"{event['tenant']}|{event['service']}".encode(), value
