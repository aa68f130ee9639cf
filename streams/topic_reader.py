"""Reading a topic whole, or live: partitions taken by hand, no consumer group, nothing committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaTimeoutError

from streams.consumer import KafkaConsumer
from streams.records import Incoming

STALLED_AFTER: Final = 30.0
SETTLES_WITHIN: Final = 2.0


class MissingTopicError(RuntimeError):
    """A topic does not exist; names it and the remedy."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"the topic {topic} does not exist; `tocsin topics` creates it")


class Read(Incoming, Protocol):
    """A record as it was fetched, with the partition it stands on."""

    @property
    def partition(self) -> int:
        """The partition it was fetched from."""
        ...

    @property
    def timestamp_type(self) -> int | None:
        """What `timestamp` is: 1 when the broker appended it, 0 what the producer says, None unknown."""
        ...


class TopicReader:
    """Reads every partition of `topic`, or those in `only`. `client` is Settings.kafka_client().

    Raises MissingTopicError on entry where the topic does not exist, and KafkaTimeoutError where the broker answers
    nothing for STALLED_AFTER seconds.
    """

    def __init__(self, client: Mapping[str, Any], topic: str, only: Collection[int] | None = None) -> None:
        self._topic, self._only = topic, only
        self._consumer = KafkaConsumer(**client, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest")
        self._client = dict(client)
        self._cluster: ClusterMetadata
        self._assigned: list[TopicPartition] = []

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
            await self._settled()
            numbers = self.partitions_of(self._topic)
            self._assigned = [
                TopicPartition(self._topic, number) for number in numbers if self._only is None or number in self._only
            ]
            if self._assigned:  # of the partitions that are asked for, none may exist
                self._consumer.assign(self._assigned)
                await self._consumer.seek_to_beginning(*self._assigned)
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._consumer.stop()

    async def _settled(self) -> None:
        """Learn of all topics: asking for a single one may create it. A topic made just now may not be known everywhere yet."""
        client = AIOKafkaClient(**self._client)
        deadline = asyncio.get_running_loop().time() + SETTLES_WITHIN
        try:
            await client.bootstrap()
            while True:
                self._cluster = await client.fetch_all_metadata()
                if self._cluster.partitions_for_topic(self._topic) or asyncio.get_running_loop().time() > deadline:
                    return
                await asyncio.sleep(0.1)
        finally:
            await client.close()

    def partitions_of(self, topic: str) -> list[int]:
        """The partitions that `topic`, this one or another, had when the reader was opened."""
        found = self._cluster.partitions_for_topic(topic)
        if not found:
            raise MissingTopicError(topic)
        return sorted(found)

    async def bounds(self) -> dict[int, tuple[int, int]]:
        """Where each partition begins and ends now."""
        begins, ends = await self._consumer.beginning_offsets(self._assigned), await self._consumer.end_offsets(self._assigned)
        return {place.partition: (begins[place], ends[place]) for place in self._assigned}

    def seek(self, partition: int, offset: int) -> None:
        """Go on at `offset`."""
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    async def to_end(self, until: Mapping[int, int] | None = None) -> AsyncIterator[Read]:
        """The records from where the last call ended, at first the beginning, to where the partitions end now.

        With `until`, to these offsets, by partition; what was read beyond them is left out.
        """
        ends: dict[TopicPartition, int] = await self._consumer.end_offsets(self._assigned)
        if until is not None:
            ends = {place: min(end, until.get(place.partition, 0)) for place, end in ends.items()}
        position = {partition: await self._consumer.position(partition) for partition in self._assigned}
        moved = asyncio.get_running_loop().time()
        while any(position[partition] < end for partition, end in ends.items()):
            for records in (await self._consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if until is None or record.offset < until.get(record.partition, 0):
                        yield record
            before, position = position, {partition: await self._consumer.position(partition) for partition in self._assigned}
            now = asyncio.get_running_loop().time()
            if position != before:
                moved = now
            elif now - moved > STALLED_AFTER:
                raise KafkaTimeoutError(f"{self._topic}: the records up to its end did not come within {STALLED_AFTER:.0f} s")

    async def live(self) -> AsyncIterator[Read]:
        """The records that come from now on; never ends."""
        ends = await self._consumer.end_offsets(self._assigned)
        for partition, end in ends.items():
            self._consumer.seek(partition, end)
        async for record in self._consumer:
            yield record
