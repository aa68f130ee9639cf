"""A transport for Faust that hands an agent one message per partition and fetched chunk, with the raw records in it.

Faust's own consumer makes a message of every record and spends about 95 µs on each. This one leaves conductor, streams,
agents, assignment and rebalances to Faust, and changes four things:

- a message holds a whole chunk: `value` is the list of records, `offset` that of the last;
- the next chunks are fetched when the folds are nearly done with those before, so chunks grow with the backlog, and no
  buffer ever fills (Faust sleeps for a second when all are full); a partition whose fold waits is not fetched from;
- the changelog is not read here at all: see streams/runtime/recovery.py;
- what is committed is the marker of the last checkpoint, and reading begins after the marker. Faust's own
  acknowledgements say only that the agent is idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from faust.transport.drivers import TRANSPORTS
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streams.consumer import KafkaConsumer
from streams.fetched import Fetched
from streams.runtime import batches
from streams.runtime.batches import read_batches
from streams.topics import MIB

if TYPE_CHECKING:
    from streams.runtime.app import RoleApp

log = logging.getLogger("tocsin.runtime")

SCHEME: Final = "tocsin"
FETCH_WAIT_MS: Final = 50
FETCH_BYTES: Final = MIB
"""Of all partitions in one answer of a broker, still compressed; in a backlog the partitions take turns."""
PARTITION_BYTES: Final = MIB // 2
MAX_OUTSTANDING: Final = 1
"""Chunks that may still be before the folds when more are fetched."""
SLOW: Final = 0.5
"""Seconds without any chunk done after which those that are outstanding wait for something, and hold up no other partition."""
FEW: Final = 500
"""Records in one fetch below which the next waits for LINGER, so that a trickle does not cost a core."""
LINGER: Final = 0.005
_IDLE: Final = 0.02

Chunks = Mapping[Any, Any]
"""By partition what was fetched of it, a Fetched; the classes that are overridden say lists."""


def raw_records(source: PartitionRecords) -> Fetched:
    """All records of a fetched partition as columns: making a ConsumerRecord of each is dearest in reading."""
    place, first = source._tp, source.next_fetch_offset
    found, source.next_fetch_offset = read_batches(source._records.data, place, first, check=source._check_crcs)
    return found


def take_raw(result: FetchResult, _max_records: int | None = None) -> Fetched | list[Any]:
    """What FetchResult.getall does, with raw records: those of a partition that is still assigned and at this position."""
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return []
    records = raw_records(result._partition_records)
    result._update_position()
    result._partition_records = None
    return records


class RawConsumer(KafkaConsumer):
    """A consumer whose `getmany` returns all that was fetched, as raw records."""

    async def getmany(self, *partitions: Any, timeout_ms: int = 0, max_records: int | None = None) -> Chunks:
        """The records of `partitions` that are here, or that come within `timeout_ms`."""
        fetched = await self._take(partitions, max_records)
        if fetched or not timeout_ms:
            return fetched
        waiter = self._fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=timeout_ms / 1000)
        if not done:
            waiter.cancel()
            return {}
        waiter.result()  # raises what the broker refuses
        return await self._take(partitions, max_records)

    async def _take(self, partitions: Any, max_records: int | None) -> Chunks:
        make_raw(self._fetcher)
        fetched: Chunks = await super().getmany(*partitions, max_records=max_records)
        return fetched


def make_raw(fetcher: Any) -> None:
    """Let everything that was fetched up to now be taken as raw records.

    Nothing here may refer to itself: only the garbage collector, which seldom runs, would free what was fetched. So the
    method has a proxy, and the client's own iterator, which refers to its owner and is not run, goes.
    """
    for result in fetcher._records.values():
        if type(result) is FetchResult and result._partition_records is not None:
            result.getall = partial(take_raw, weakref.proxy(result))
            result._partition_records._records_iterator = None


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with a client of our settings and raw records."""

    app: RoleApp

    def _create_worker_consumer(self, transport: Any) -> KafkaConsumer:
        conf = self.app.conf
        self._assignor = self.app.assignor
        return KafkaConsumer(
            **self.app.settings.kafka_client(),
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=PARTITION_BYTES,
            fetch_max_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
        )

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Partitions of the changelog are assigned with those of the source; nothing is fetched from them here."""
        self._ensure_consumer().pause(*[driver.ensure_aiokafka_TP(tp) for tp in assigned if tp.topic != self.app.source])
        await super().on_partitions_assigned(assigned, generation_id)

    async def _fetch_records(
        self, consumer: KafkaConsumer, active_partitions: set[TP], timeout: float | None = None, max_records: int | None = None
    ) -> Chunks:
        fetcher, loop = consumer._fetcher, asyncio.get_running_loop()
        until = loop.time() + (timeout or 0)
        while True:
            make_raw(fetcher)
            fetched: Chunks = await super()._fetch_records(consumer, active_partitions, timeout=0, max_records=max_records)
            left = until - loop.time()
            if fetched or left <= 0 or not self.consumer.flow_active:
                return fetched
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=left)
            if done:
                waiter.result()  # raises what the broker refuses
            else:
                waiter.cancel()

    def end(self, tp: TP) -> int | None:
        """The end of an assigned partition when it was last fetched from."""
        consumer = self._consumer
        if consumer is None or tp not in consumer.assignment():
            return None
        found: int | None = consumer.highwater(tp)
        return found

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group has committed."""
        offset: int | None = await self.call_thread(self._ensure_consumer().committed, tp)
        return offset


class Consumer(driver.Consumer):
    """Yields chunks; commits markers."""

    app: RoleApp
    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._outstanding: set[tuple[TP, int]] = set()
        self._slow: set[tuple[TP, int]] = set()
        self._progress = asyncio.Event()
        self._markers: dict[TP, int] = {}
        self._linger = 0.0
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # --- chunks ----------------------------------------------------------------------------------------------------

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """One message per partition that was fetched."""
        fetched, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if self.should_stop:
            return
        if not self.flow_active:
            with contextlib.suppress(Exception):  # as Faust does: the rebalance that stopped the flow seeks again
                await self.perform_seek()
            return
        for place, records in fetched.items():
            tp = TP(place.topic, place.partition)
            if not self._is_current(generation):
                return
            if tp.topic != self.app.source or tp not in active:
                continue
            last = records[-1]
            self._outstanding.add((tp, last.offset))
            chunk: Any = records  # what Faust takes for the bytes of one record
            message = ConsumerMessage(
                tp.topic, tp.partition, last.offset, last.timestamp / 1000, last.timestamp_type, None, None, chunk, None, -1, -1,
                tp, generation_id=generation,
            )  # fmt: skip
            yield tp, message

    def _is_current(self, generation: int) -> bool:
        """Whether what was fetched under `generation` may still be folded."""
        return self.flow_active and self.app.consumer_generation_id == generation

    async def _wait_next_records(self, timeout: float) -> tuple[Chunks, set[TP]]:
        """Fetch when the folds are nearly idle, and nothing of a partition whose fold waits: what it has not taken stays here."""
        while len(self._outstanding - self._slow) > MAX_OUTSTANDING and self.flow_active and not self.should_stop:
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), SLOW)
            except TimeoutError:
                self._slow = set(self._outstanding)
        if not self.flow_active:
            await self.wait(self.can_resume_flow.wait())
        if self._linger:
            await asyncio.sleep(self._linger)
        active = self._get_active_partitions() - {tp for tp, _ in self._slow}
        if not active:
            await asyncio.sleep(_IDLE)
            return {}, active
        fetched: Chunks = await self._getmany(active_partitions=active, timeout=timeout)
        self._linger = LINGER if sum(map(len, fetched.values())) < FEW else 0.0
        return fetched, active

    def done(self, tp: TP, offset: int) -> None:
        """The chunk that ends at `offset` is done with. (The app says so: Faust's compiled stream bypasses `ack`.)"""
        self._outstanding.discard((tp, offset))
        self._slow.discard((tp, offset))
        self._progress.set()

    def end(self, tp: TP) -> int | None:
        """The end of an assigned partition when it was last fetched from."""
        return self._thread.end(tp)

    async def committed(self, tp: TP) -> int | None:
        """The offset that the group has committed, of an assigned partition."""
        return await self._thread.committed(tp)

    async def perform_seek(self) -> None:
        """Go to where the state stands, not to what was committed: state rebuilt from less needs the records once more."""
        await super().perform_seek()
        for number, applied in self.app.partitions.applied().items():
            await self.seek(TP(self.app.source, number), applied + 1)
        self._outstanding.clear()
        self._slow.clear()
        self._progress.set()

    # --- acknowledgement -------------------------------------------------------------------------------------------

    def mark(self, tp: TP, marker: int) -> None:
        """Everything up to offset `marker` is stored: the next commit covers it."""
        self._markers[tp] = marker

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._markers) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        marker = self._markers.get(tp)
        return None if marker is None or marker < 0 else marker + 1

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A chunk has no gaps that anybody must wait for."""

    async def commit_and_end_transactions(self) -> None:
        """The agent is idle, and partitions are about to go: save what is unsaved, and commit it."""
        await self.app.partitions.finish()
        await super().commit_and_end_transactions()

    def stop_flow(self) -> None:
        """Block the consumer."""
        self.app.partitions.suspend()
        super().stop_flow()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish, and drop all state: partitions that stay here are opened anew."""
        await super().on_partitions_revoked(revoked)
        self.app.partitions.drop()
        self._outstanding.clear()
        self._slow.clear()
        self._markers.clear()
        self._progress.set()

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Our own watchdog looks after that."""


class Producer(driver.Producer):
    """Faust's producer, idle: what leaves the worker is sent, and awaited, by streams/runtime/checkpoint.py."""

    async def on_start(self) -> None:
        """Open no connection."""

    async def on_stop(self) -> None:
        """Close none."""

    async def flush(self) -> None:
        """Nothing is buffered."""


class Transport(driver.Transport):
    """Chosen by the scheme of the broker's URL."""

    Consumer = Consumer
    Producer = Producer


batches.install()
TRANSPORTS.aliases[SCHEME] = f"{Transport.__module__}:{Transport.__name__}"
