"""A process of a worker: it may die or be frozen wherever it waits for the world, and before and after each write to its disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from aiokafka import TopicPartition

from streams.records import Outgoing
from streams.runtime.producer import Changelog
from streams.settings import Settings
from tests.simulation.broker import Broker, Log, New, Place, Record, Sequenced

_T = TypeVar("_T")
RETRY: Final = 0.15
"""Seconds without a reply after which a request is sent again."""


class KilledError(BaseException):
    """The process is no more: nothing that it still tries has an effect."""


class Process:
    """`die_in` and `freeze_in` count the steps until the process dies, or is frozen for `freeze_for` seconds."""

    def __init__(self, name: str, broker: Broker, choices: random.Random) -> None:
        self.name, self.broker, self.choices = name, broker, choices
        self.is_dead = False
        self.died = asyncio.get_running_loop().create_future()
        self.die_in: int | None = None
        self.freeze_in: int | None = None
        self.freeze_for = 0.0
        self.frozen: Callable[[], None] = lambda: None
        self.slow = 0.0
        self._thaw: asyncio.Event | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in order, as all that a seed decides

    # --- life ------------------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A task that ends with the process."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def kill(self) -> None:
        """End it, in the middle of whatever it does."""
        if not self.is_dead:
            self.is_dead = True
            self.thaw()
            for task in list(self._tasks):
                task.cancel()
            self.died.set_result(None)

    def freeze(self, seconds: float) -> None:
        """Nothing that it does goes on for so long; what it has sent is under way."""
        if self._thaw is None and not self.is_dead:
            self._thaw = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, self.thaw)
            self.frozen()

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self._thaw is not None

    def thaw(self) -> None:
        """Go on."""
        if self._thaw is not None:
            self._thaw.set()
            self._thaw = None

    def step_now(self) -> None:
        """A boundary at which nothing is awaited."""
        if self.die_in is not None:
            self.die_in -= 1
            if self.die_in < 0:
                self.kill()
        if self.is_dead:
            raise KilledError

    async def step(self) -> None:
        """A boundary: from here the process may not go on, or not soon."""
        self.step_now()
        if self.freeze_in is not None:
            self.freeze_in -= 1
            if self.freeze_in < 0:
                self.freeze_in = None
                self.freeze(self.freeze_for)
        while self._thaw is not None:
            await self._thaw.wait()
        if self.is_dead:
            raise KilledError

    async def pause(self, seconds: float) -> None:
        """Wait, with a boundary before and after."""
        await self.step()
        await asyncio.sleep(seconds)
        await self.step()

    # --- the network -----------------------------------------------------------------------------------------------

    async def call(self, effect: Callable[[], _T], *, harmless: bool = False) -> _T:
        """Ask the broker for `effect`, until a reply comes. Requests and replies take their time, and get lost.

        What was sent arrives, whatever becomes of the sender. `harmless` requests only read.
        """
        loop, choices = asyncio.get_running_loop(), self.choices
        while True:
            await self.step()
            reply: asyncio.Future[tuple[_T | None, Exception | None] | None] = loop.create_future()
            there, back = choices.uniform(0.0005, 0.006), choices.uniform(0.0005, 0.004)
            if self.slow and choices.random() < self.slow:
                there += choices.choice((0.05, 0.4, 2.5))
            loses = self.slow and choices.random() < self.slow
            lost_there, lost_back = (loses and choices.random() < 0.5), loses

            if lost_there or lost_back:
                loop.call_later(there + RETRY, _resolve, reply, None)
            if harmless and not lost_there and not lost_back:
                loop.call_later(there + back, _answer, reply, effect)
            elif not lost_there:
                loop.call_later(there, self._arrive, reply, effect, None if lost_back else back)
            answer = await reply
            await self.step()
            if answer is None:
                continue
            found, error = answer
            if error is not None:
                raise error
            return found  # type: ignore[return-value]

    def _arrive(self, reply: asyncio.Future[Any], effect: Callable[[], Any], back: float | None) -> None:
        answer = _done(effect)
        if back is not None:
            asyncio.get_running_loop().call_later(back, _resolve, reply, answer)


def _done(effect: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return effect(), None
    except Exception as error:  # noqa: BLE001 - it is what the broker answers
        return None, error


def _answer(reply: asyncio.Future[Any], effect: Callable[[], Any]) -> None:
    _resolve(reply, _done(effect))


def _resolve(reply: asyncio.Future[Any], answer: Any) -> None:
    if not reply.done():
        reply.set_result(answer)


# --- clients of the broker -----------------------------------------------------------------------------------------


class SimulatedBatch:
    """What AIOKafkaProducer.create_batch gives."""

    def __init__(self, limit: int) -> None:
        self.records: list[New] = []
        self._left = limit

    def append(self, *, key: bytes | None, value: bytes | None, timestamp: int) -> object | None:
        self._left -= len(key or b"") + len(value or b"") + 20
        if self._left < 0:
            return None
        self.records.append(New(key, value))
        return self

    def close(self) -> None:
        """Nothing more is added."""


class Metadata:
    """Where a batch stands."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


class SimulatedProducer:
    """As much of a (fenced) AIOKafkaProducer as the changelog needs: what is queued is sent in order."""

    _message_accumulator = SimpleNamespace()

    def __init__(self, process: Process, fence: str | None, limit: int) -> None:
        self._process, self._fence, self._limit = process, fence, limit
        self._turn = asyncio.Lock()
        self.id = (-1, -1)
        self._number = 0

    async def start(self) -> None:
        self.id = await self._process.call(lambda: self._process.broker.init_producer(self._fence))

    async def stop(self) -> None:
        """It has no connections."""

    def create_batch(self) -> SimulatedBatch:
        return SimulatedBatch(self._limit)

    async def send_batch(self, batch: SimulatedBatch, topic: str, *, partition: int) -> asyncio.Task[Metadata]:
        self._number += 1
        return self._process.spawn(self._send((topic, partition), batch.records, Sequenced(*self.id, self._number)))

    async def _send(self, place: Place, records: list[New], by: Sequenced) -> Metadata:
        async with self._turn:
            return Metadata(await self._process.call(lambda: self._process.broker.append(place, records, by)))


class SimulatedChangelog(Changelog):
    """The product's changelog over simulated producers."""

    def __init__(self, settings: Settings, role: str, process: Process, limit: int) -> None:
        super().__init__(settings, role)
        self._process, self._limit = process, limit

    def is_last(self, partition: int, log: Log) -> bool:
        """Whether nobody has written after this one has claimed the partition."""
        producer: Any = self._producers.get(partition)
        return producer is not None and log.producers.get(producer.id[0], (-1,))[0] == producer.id[1]

    def _producer(self, fence: str | None) -> Any:
        return SimulatedProducer(self._process, fence, self._limit)


class SimulatedOutbox:
    """Sends in order per partition, a batch at a time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._id = process.broker.init_producer(None)
        self._numbers: dict[Place, int] = {}
        self._queues: dict[Place, list[tuple[New, asyncio.Future[None]]]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether all was sent."""
        return not self._queues

    async def send_all(self, outgoing: Sequence[Outgoing]) -> list[asyncio.Future[Any]]:
        return [await self.send(each) for each in outgoing]

    async def send(self, outgoing: Outgoing) -> asyncio.Future[Any]:
        topic, key, value, headers, partition = outgoing
        broker = self._process.broker
        place = (topic, broker.partition_of(topic, key) if partition is None else partition)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if place not in self._queues:
            self._queues[place] = []
            self._process.spawn(self._pump(place))
        self._queues[place].append((New(key, value, headers), future))
        return future

    async def _pump(self, place: Place) -> None:
        broker, queue = self._process.broker, self._queues[place]
        while queue:
            batch = queue[: self._process.choices.randint(1, 6)]
            number = self._numbers[place] = self._numbers.get(place, -1) + 1
            records, by = [record for record, _ in batch], Sequenced(*self._id, number)
            await self._process.call(lambda records=records, by=by: broker.append(place, records, by))  # type: ignore[misc]
            del queue[: len(batch)]
            for _, future in batch:
                if not future.done():
                    future.set_result(None)
        del self._queues[place]


class SimulatedConsumer:
    """As much of an AIOKafkaConsumer as recovery needs."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._positions: dict[TopicPartition, int] = {}

    def assign(self, places: list[TopicPartition]) -> None:
        """Which partitions are read is said at each read."""

    def pause(self, *places: TopicPartition) -> None:
        """As above."""

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._process.call(lambda: dict.fromkeys(places, 0), harmless=True)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        logs = self._process.broker.logs
        return await self._process.call(lambda: {place: logs[tuple(place)].end for place in places}, harmless=True)

    async def getmany(self, *places: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        def read() -> dict[TopicPartition, tuple[list[Record], int]]:
            found = {}
            for place in sorted(places):
                log = self._process.broker.logs[tuple(place)]
                records = log.read(self._positions[place], self._process.choices.randint(1, 30))
                found[place] = records, records[-1].offset + 1 if records else log.end
            return found

        found = await self._process.call(read, harmless=True)
        self._positions.update({place: position for place, (_, position) in found.items()})
        return {place: records for place, (records, _) in found.items() if records}
