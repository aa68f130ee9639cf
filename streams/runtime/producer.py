"""Producers: of the changelog, fenced, one atomic batch per call; and of everything else that goes out.

Fencing. `InitProducerId` with a stable id gives a producer id and an epoch, and makes every older epoch of that id invalid.
The appends are plain idempotent batches under that epoch, not transactions. The broker of a partition learns the new epoch
with the first batch that it sees, so that batch, the barrier, is written before the owner reads how far the changelog goes:
what a former owner still has in hand is refused from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    NotCoordinatorError,
    ProducerFenced,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from streams.operations.metrics import Metrics
from streams.records import Outgoing
from streams.settings import Settings
from streams.topics import CHECKPOINT_LIMIT, DEAD_LETTERS, MIB, changelog_name

log = logging.getLogger("tocsin.runtime")

INTERNAL: Final = b"\0"
"""First byte of changelog keys that are the runtime's own."""
BARRIER: Final = INTERNAL + b"barrier"
BATCH: Final = MIB // 4
"""Bytes of a batch of what goes out."""
MANY: Final = 8
"""Dead letters that make up a batch of their own."""
_OVERHEAD: Final = 32  # of a record in a batch, at most
_STOP_WITHIN: Final = 1.0
_RETRY_AFTER: Final = 0.05
_TRANSIENT: Final = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError, ConcurrentTransactions)
_TRANSACTION_TIMEOUT_MS: Final = 10_000

Items = Sequence[tuple[bytes, bytes | None]]


class FencedError(RuntimeError):
    """Another worker owns the partition now; this one may write nothing more."""


class BatchTooLargeError(ValueError):
    """The items do not fit one batch."""


class FencedProducer(AIOKafkaProducer):  # type: ignore[misc]
    """An idempotent producer that takes its id and epoch from the transactional id `fence`, without transactions."""

    def __init__(self, *, fence: str, **options: Any) -> None:
        super().__init__(enable_idempotence=True, acks="all", **options)
        self._fence = fence
        self._sender._do_init_pid = self._init_producer_id

    async def _init_producer_id(self, _node: object) -> bool:
        request = InitProducerIdRequest(transactional_id=self._fence, transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS)
        while True:
            if self.client.get_random_node() is None:
                raise NodeNotReadyError("the brokers know of none that is ready")  # after a pause they have lost each other
            node = await self._sender._find_coordinator(CoordinationType.TRANSACTION, self._fence)
            response = await self.client.send(node, request, group=ConnectionGroup.COORDINATION)
            error = for_code(response.error_code)
            if not response.error_code:
                break
            if error not in _TRANSIENT:
                raise error(f"InitProducerId for {self._fence}")
            self._sender._coordinator_dead(CoordinationType.TRANSACTION)
            await asyncio.sleep(_RETRY_AFTER)
        self._sender._txn_manager.set_pid_and_epoch(response.producer_id, response.producer_epoch)
        return True


class Changelog:
    """Appends to the partitions of the changelog of `role`, one batch per call, whole or not at all."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.topic = changelog_name(settings.group, role)
        self._settings = settings
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._fences = settings.fencing == "on"

    async def claim(self, partitions: Iterable[int]) -> dict[int, int]:
        """Shut out former owners of `partitions`; the offset of the barrier on each. Without fencing: nothing."""
        wanted = sorted(partitions)
        await self.release([number for number in self._producers if self._fences or number not in wanted])
        # All end before an error is raised: a claim that goes on would disturb the next one.
        offsets = await asyncio.gather(*[self._claim(number) for number in wanted], return_exceptions=True)
        for offset in offsets:
            if isinstance(offset, BaseException):
                raise offset
        return {number: offset for number, offset in zip(wanted, offsets, strict=True) if isinstance(offset, int)}

    async def _claim(self, partition: int) -> int | None:
        if not self._fences:
            if partition not in self._producers:
                self._producers[partition] = await started(self._producer(None))
            return None
        self._producers[partition] = await started(self._producer(f"{self._settings.group}-{self.topic}-{partition}"))
        return await self.append(partition, [(BARRIER, str(time.time_ns()).encode())])

    def _producer(self, fence: str | None) -> AIOKafkaProducer:
        if fence is None:
            return AIOKafkaProducer(acks="all", **self._options())
        return FencedProducer(fence=fence, **self._options())

    def _options(self) -> dict[str, Any]:
        size = CHECKPOINT_LIMIT
        return {**self._settings.kafka_client(), "linger_ms": 0, "max_batch_size": size, "max_request_size": size}

    async def append(self, partition: int, items: Items) -> int:
        """Append `items` as one batch and wait until it is stored. Returns the offset of the last one.

        Raises FencedError, KafkaError, or BatchTooLargeError (see `fits`).
        """
        producer = self._producers[partition]
        batch = producer.create_batch()
        now = time.time_ns() // 1_000_000
        for key, value in items:
            if batch.append(key=key, value=value, timestamp=now) is None:
                raise BatchTooLargeError(
                    f"{len(items)} items of partition {partition} exceed a batch of {CHECKPOINT_LIMIT} bytes"
                )
        batch.close()
        try:
            metadata = await (await producer.send_batch(batch, self.topic, partition=partition))
        except ProducerFenced as error:
            raise FencedError(
                f"another worker has taken over partition {partition} of {self.topic}, because this one was silent for too long "
                "(suspended, perhaps), or `tocsin state` has replaced the state. Start it again"
            ) from error
        offset: int = metadata.offset
        if offset < 0:
            # A retry whose first attempt the broker has stored and forgotten: stored, but where is not known.
            raise KafkaError(f"{self.topic}[{partition}]: the broker does not say where it stored a batch")
        return offset + len(items) - 1

    async def release(self, partitions: Iterable[int]) -> None:
        """Close the producers of `partitions`."""
        producers = [self._producers.pop(number) for number in list(partitions) if number in self._producers]
        await asyncio.gather(*[_stop(producer) for producer in producers])

    async def close(self) -> None:
        """Close all producers."""
        await self.release(list(self._producers))


def size_of(items: Items) -> int:
    """At most so many bytes take `items` in a batch."""
    return sum(len(key) + len(value or b"") + _OVERHEAD for key, value in items)


def fits(items: Items) -> bool:
    """Whether `items` can be appended as one batch."""
    return size_of(items) + 128 <= CHECKPOINT_LIMIT


class Outbox:
    """Sends what leaves the worker, in order per partition. Topics get their prefix here.

    Of each partition one batch is open and one on its way, so a broker that is away costs BATCH * 2 bytes for each, and then
    `send` waits until it is back: who folds waits with it.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect."""
        self._producer = await started(
            AIOKafkaProducer(
                **self._settings.kafka_client(),
                acks="all",
                enable_idempotence=self._settings.fencing == "on",
                linger_ms=0,
                max_batch_size=BATCH,
                max_request_size=4 * MIB,
            )
        )

    async def send(self, outgoing: Outgoing) -> asyncio.Future[Any]:
        """Queue `outgoing`; the future that is returned tells when the brokers have it."""
        topic, key, value, headers, partition = outgoing
        producer, name = self._connected(), self._settings.topic_prefix + topic
        value = _present(key, value)
        sent: asyncio.Future[Any] = await _taken(
            name, lambda: producer.send(name, value, key=key, partition=partition, headers=list(headers))
        )
        self._metrics.sent.labels(topic).inc()
        return sent

    async def send_all(self, outgoing: Sequence[Outgoing]) -> list[asyncio.Future[Any]]:
        """Queue `outgoing`, in order but for dead letters, whose order means nothing: where they are many, they go in batches."""
        letters = [each for each in outgoing if each.topic == DEAD_LETTERS.name]
        if len(letters) < MANY:
            return [await self.send(each) for each in outgoing]
        others = [each for each in outgoing if each.topic != DEAD_LETTERS.name]
        return [*[await self.send(each) for each in others], *await self._send_batches(DEAD_LETTERS.name, letters)]

    async def _send_batches(self, topic: str, records: Sequence[Outgoing]) -> list[asyncio.Future[Any]]:
        """Queue `records` as few batches, each for another partition."""
        producer, name = self._connected(), self._settings.topic_prefix + topic
        partitions = itertools.cycle(sorted(await _taken(name, lambda: producer.partitions_for(name))))
        now = time.time_ns() // 1_000_000
        batches = [producer.create_batch()]
        for _, key, value, headers, _ in records:
            said = {"key": key, "value": _present(key, value), "headers": list(headers), "timestamp": now}
            if batches[-1].append(**said) is None:
                batches.append(producer.create_batch())
                batches[-1].append(**said)  # one record always fits
        sent = []
        for batch, partition in zip(batches, partitions, strict=False):
            batch.close()
            sent.append(await _taken(name, partial(producer.send_batch, batch, name, partition=partition)))
        self._metrics.sent.labels(topic).inc(len(records))
        return sent

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise RuntimeError("nothing can be sent before start()")
        return self._producer

    async def stop(self) -> None:
        """Send what is queued and disconnect."""
        if self._producer is not None:
            await _stop(self._producer)


def _present(key: bytes | None, value: bytes | None) -> bytes | None:
    """The client sends no record without key and value; a dead letter may have been one."""
    return b"" if key is None and value is None else value


async def _taken(name: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """What `call` of the client returns, as often as it takes until it takes what it is given for the topic `name`."""
    while True:
        try:
            return await call()
        except (KafkaTimeoutError, UnknownTopicOrPartitionError):
            # The client waits for room, or to hear where the topic is, for 40 s. The topic was there at start.
            log.warning("%s takes no records; waiting for its brokers", name)


async def started(producer: AIOKafkaProducer) -> AIOKafkaProducer:
    """`producer`, connected; closed again where that fails. What it has taken waits for brokers for as long as they are away."""
    # A batch whose partition has no leader would expire, and leave a gap in the sequence that all later ones are refused for.
    producer._message_accumulator._batch_ttl = math.inf
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


async def _stop(producer: AIOKafkaProducer) -> None:
    with contextlib.suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(_STOP_WITHIN):
            await producer.stop()
