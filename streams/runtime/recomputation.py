"""A partition of the event topic, folded once more: what its state must be."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Final, Self

from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError

from streams.decode import Source
from streams.fetched import Fetched
from streams.operations.metrics import Metrics
from streams.runtime import batches
from streams.runtime.changelog_table import ChangelogTable
from streams.runtime.engine import EngineFold
from streams.runtime.rulesets import Rulesets
from streams.runtime.transport import RawConsumer
from streams.settings import Settings
from streams.topics import EVENTS, MIB, RULES

STALLED_AFTER: Final = 30.0
RULES_WITHIN: Final = 10.0
"""Seconds that the documents of a ruleset may take to be read."""
_STEP: Final = 2_000
_POLL_MS: Final = 200


class UnreachableError(RuntimeError):
    """The log does not reach back to where the recomputation would begin. `begin` is where it begins."""

    def __init__(self, topic: str, partition: int, wanted: int, begin: int) -> None:
        self.begin = begin
        super().__init__(
            f"{topic}[{partition}] begins at offset {begin}, and offset {wanted} is where the state would have to begin "
            "(retention has removed what lies before)"
        )


class NewerCopyError(RuntimeError):
    """The table to begin with covers more of the log than what is to be recomputed."""


class Recomputation:
    """Folds partitions of the event topic with what a worker folds them with. Use it as a context."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings, self._partitions = settings, partitions
        self._topic = settings.topic_prefix + EVENTS.name
        self.rulesets = Rulesets(settings.topic_prefix + RULES.name, wait=RULES_WITHIN)
        self._follower: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        batches.install()
        self._follower = asyncio.create_task(self.rulesets.follow(self._settings))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._follower.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._follower

    async def table(self, partition: int, until: int, base: Mapping[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """The table of `partition` up to offset `until`, from the beginning of the log or from the table `base`.

        Raises UnreachableError, NewerCopyError, MissingRulesetError, KafkaError.
        """
        source = Source(self._topic, partition, self._partitions, self._settings.control_key.encode() or None)
        table = ChangelogTable()
        table.put(list((base or {}).items()))
        items, max_groups = list(table.items.items()), int(self._settings.max_groups)
        fold = await EngineFold.restore(source, items, self.rulesets, Metrics(), asyncio.Event(), max_groups)
        if fold.applied > until:
            raise NewerCopyError(
                f"the copy covers partition {partition} up to offset {fold.applied}, and the state of the group up to {until}: "
                "what lies between was not decided by this group. Take an older copy, or none"
            )
        async with contextlib.aclosing(self._records(partition, fold.applied + 1, until)) as chunks:
            async for records in chunks:
                for at in range(0, len(records), _STEP):
                    await fold.process(records[at : at + _STEP])
                    table.put(fold.take_dirty())
                    await asyncio.sleep(0)
        return table.items

    async def _records(self, partition: int, first: int, until: int) -> AsyncGenerator[Fetched, None]:
        """The records from `first` to `until`, as a worker gets them."""
        consumer = RawConsumer(
            **self._settings.kafka_client(), group_id=None, enable_auto_commit=False, auto_offset_reset="none",
            max_partition_fetch_bytes=MIB,
        )  # fmt: skip
        place = TopicPartition(self._topic, partition)
        await consumer.start()
        try:
            consumer.assign([place])
            begin = (await consumer.beginning_offsets([place]))[place]
            if begin > first:
                raise UnreachableError(self._topic, partition, first, begin)
            consumer.seek(place, first)
            loop = asyncio.get_running_loop()
            moved, position = loop.time(), first
            while position <= until:
                for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                    yield records.up_to(until)
                before, position = position, await consumer.position(place)
                if position != before:
                    moved = loop.time()
                elif loop.time() - moved > STALLED_AFTER:
                    raise KafkaTimeoutError(f"{self._topic}[{partition}]: offset {position} did not come")
        finally:
            await consumer.stop()
