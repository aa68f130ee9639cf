"""Table recovery: Faust says when, and how streams go on after it; what lies between is ours.

Faust's own reads the changelog record by record (9,000 a second), buffers what it may write over newer values, ends at an
exact offset that need not exist, and forgets to start when one rebalance follows another within seconds. Here whole chunks
go to the store, and the end is the position at which the changelog ended once the barrier stood in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from mode import Service

from streams.fetched import Fetched
from streams.records import Incoming
from streams.runtime.transport import RawConsumer
from streams.settings import Settings
from streams.topics import MIB

if TYPE_CHECKING:
    from streams.runtime.app import RoleApp

log = logging.getLogger("tocsin.runtime")

STALLED_AFTER: Final = 60.0
"""Seconds without a record after which a recovery gives up, if the brokers answer."""
FETCH_BYTES: Final = 2 * MIB
"""Of one partition, in one fetch."""
_TELL_EVERY: Final = 5.0
_SLICE: Final = 5_000
_POLL_MS: Final = 200


class RecoveryError(RuntimeError):
    """The local state could not be rebuilt."""


class ChunkRecovery(Recovery):
    """Faust's recovery service, with `take_over` in place of its reading of changelogs."""

    app: RoleApp

    @Service.task
    async def _restart_recovery(self) -> None:
        """At each assignment: take the partitions over, then let Faust seek and resume the streams."""
        while not self.should_stop:
            if await self.wait_for_stopped(self.signal_recovery_start.wait()):
                return
            self.signal_recovery_start.clear()
            generation = self._generation_id
            self._set_recovery_started()
            try:
                await self._wait(self.app.take_over(sorted(tp.partition for tp in self.active_tps), generation))
                await self._wait(self.on_recovery_completed(generation))
            except RebalanceAgain:
                continue
            except ServiceStopped:
                return

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Nothing: no changelog record gets here."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Nothing: `recover` tells how far it is."""


class ChunkTableManager(TableManager):
    """Faust's table manager without the second that it sleeps at start."""

    app: RoleApp

    async def on_start(self) -> None:
        """Start at once."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> ChunkRecovery:
        """The recovery service."""
        if not isinstance(self._recovery, ChunkRecovery):
            self._recovery = ChunkRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class Restored(Protocol):
    """The local tables, as recovery sees them."""

    def changelog_offset(self, partition: int) -> int | None:
        """The offset of the last changelog record that is in the table."""
        ...

    def apply_records(self, partition: int, records: Sequence[Incoming], upto: int) -> None:
        """Write what the records say, and the offset `upto`, in one batch."""
        ...

    def holds(self, partition: int, record: Incoming) -> bool:
        """Whether the table says of the record's key what the record says."""
        ...

    def put_aside(self, partition: int, reason: object) -> None:
        """Begin with an empty table."""
        ...


async def recover(
    settings: Settings,
    role: str,
    topic: str,
    partitions: list[int],
    tables: Restored,
    moved: Callable[[], None],
    left: Callable[[int, int], None] = lambda *_: None,
) -> dict[int, int]:
    """Bring the local tables of `partitions` to where the changelog `topic` ends now. Returns the ends.

    A table that is ahead of the changelog, behind its begin, or that contradicts the record it claims to end with belongs to
    another log: it is put aside and rebuilt. `moved` is called at each step forward, and `left` with how many records of a
    partition are still to be read. Raises RecoveryError where the changelog cannot be read to its end, KafkaError where brokers
    are away.
    """
    if not partitions:
        return {}
    consumer = RawConsumer(
        **settings.kafka_client(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    try:
        await consumer.start()
        return await read_changelogs(consumer, role, topic, partitions, tables, moved, left)
    finally:
        await consumer.stop()


async def read_changelogs(
    consumer: Any,
    role: str,
    topic: str,
    partitions: list[int],
    tables: Restored,
    moved: Callable[[], None],
    left: Callable[[int, int], None] = lambda *_: None,
) -> dict[int, int]:
    """`recover` by a consumer that is started."""
    places = {TopicPartition(topic, number): number for number in partitions}
    consumer.assign(list(places))
    begins, ends = await consumer.beginning_offsets(list(places)), await consumer.end_offsets(list(places))
    reading = _Reading(consumer, role, places, begins, ends, tables, moved, left)
    await reading.run()
    return {places[place]: end for place, end in ends.items()}


class _Reading:
    """The changelog partitions that are being read."""

    def __init__(
        self,
        consumer: Any,
        role: str,
        places: Mapping[TopicPartition, int],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        tables: Restored,
        moved: Callable[[], None],
        left: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._consumer, self._role, self._tables, self._moved, self._tell_left = consumer, role, tables, moved, left
        self._places, self._begins, self._ends = places, begins, ends
        self._checked: set[TopicPartition] = set()
        self._left: set[TopicPartition] = set()

    async def run(self) -> None:
        for place in self._places:
            self._start(place)
        if self._left:
            behind = ", ".join(str(self._places[place]) for place in sorted(self._left))
            records = sum(self._ends[place] - self._begins[place] for place in self._left)
            log.info("%s: recovering partitions %s, %d changelog records at most", self._role, behind, records)
        loop = asyncio.get_running_loop()
        moved = told = loop.time()
        while self._left:
            fetched = await self._consumer.getmany(*self._left, timeout_ms=_POLL_MS)
            for place, records in fetched.items():
                await self._apply(place, Fetched.of(records))
            for place in list(self._left):
                await self._end(place)
            now = loop.time()
            if fetched:
                moved = now
                self._moved()
            if now - moved > STALLED_AFTER:
                stuck = ", ".join(f"{place.topic}[{place.partition}]" for place in sorted(self._left))
                if await self._answers():
                    raise RecoveryError(f"no record of {stuck} came within {STALLED_AFTER:.0f} s, and its end is not reached")
                log.warning("%s: recovery waits for the brokers of %s", self._role, stuck)
                moved = loop.time()
            if now - told > _TELL_EVERY:
                told = now
                await self._tell()

    async def _answers(self) -> bool:
        try:
            await self._consumer.end_offsets(list(self._left))
        except (KafkaError, TimeoutError, OSError):
            return False
        return True

    def _start(self, place: TopicPartition) -> None:
        number, end = self._places[place], self._ends[place]
        held = self._tables.changelog_offset(number)
        if held is not None and held >= end:
            self._tables.put_aside(number, f"it holds changelog offset {held}, and the changelog ends at {end - 1}")
            held = None
        if held is not None and held < self._begins[place] - 1:
            self._tables.put_aside(
                number, f"it ends at changelog offset {held}, and the changelog begins at {self._begins[place]}"
            )
            held = None
        # The last record that the table holds is read once more, to see whether it is the same log.
        start = self._begins[place] if held is None else max(held, self._begins[place])
        if held is None:
            self._check_begin(place)
        self._tell_left(number, end - start if start < end else 0)
        if start < end:
            self._consumer.seek(place, start)
            self._left.add(place)
        else:
            self._consumer.pause(place)

    def _check_begin(self, place: TopicPartition) -> None:
        """Compaction leaves the begin of a log where it is; one that has moved lost records that nothing took the place of."""
        if self._begins[place] > 0:
            raise RecoveryError(
                f"{place.topic}[{place.partition}] begins at offset {self._begins[place]}: records before it expired or were "
                "deleted, so state is missing in it, and the local table does not hold it. Restore the changelog from a backup, "
                "or set a new TOCSIN_GROUP and run `tocsin topics` and `tocsin deploy --again` to start from the event log"
            )

    async def _apply(self, place: TopicPartition, records: Fetched) -> None:
        number = self._places[place]
        if records.unreadable:
            raise RecoveryError(f"{place.topic}[{place.partition}] holds a batch that cannot be read, so state is missing in it")
        if place not in self._checked:
            self._checked.add(place)
            held = self._tables.changelog_offset(number)
            if held == records[0].offset and not self._tables.holds(number, records[0]):
                self._tables.put_aside(number, f"it contradicts the changelog at offset {held}")
                self._check_begin(place)
                self._consumer.seek(place, self._begins[place])
                return
        for at in range(0, len(records), _SLICE):
            part = records[at : at + _SLICE]
            self._tables.apply_records(number, part, part[-1].offset)
            await asyncio.sleep(0)
        self._tell_left(number, max(self._ends[place] - records[-1].offset - 1, 0))

    async def _end(self, place: TopicPartition) -> None:
        # The last record may be gone (compaction), or be none that is delivered; so the position counts.
        if await self._consumer.position(place) >= self._ends[place]:
            number, last = self._places[place], self._ends[place] - 1
            held = self._tables.changelog_offset(number)
            if held is None or held < last:
                self._tables.apply_records(number, [], last)
            self._left.discard(place)
            self._tell_left(number, 0)
            self._consumer.pause(place)

    async def _tell(self) -> None:
        total = sum(self._ends[place] - self._begins[place] for place in self._places)
        left = sum([self._ends[place] - await self._consumer.position(place) for place in self._left])
        log.info("%s: recovering, %d of %d changelog records read", self._role, total - left, total)
