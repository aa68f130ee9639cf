"""The partitions of one role that are open in this worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

from aiokafka.errors import BrokerResponseError, KafkaError

from streams.operations.metrics import Metrics
from streams.records import Fold, Incoming
from streams.runtime.checkpoint import AbandonedError, Journal, Partition, Sender, Table
from streams.runtime.producer import Items
from streams.runtime.staging import ERASED, complete

log = logging.getLogger("tocsin.runtime")

CHECKPOINT_EVERY: Final = 1.0
"""Seconds for which a change may be unsaved."""
TURN: Final = 0.05
"""Seconds between looks at what is to be saved or woken."""
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 5.0

Restore = Callable[[int, Iterable[tuple[bytes, bytes]], asyncio.Event], Awaitable[Fold]]
"""The fold of a partition from the items of its table. The event is set when the partition is to be given up."""


def wall_clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class NotRecoveredError(RuntimeError):
    """The local table lacks a part of the changelog; processing would count wrongly."""


class LocalTable(Table, Protocol):
    """The local tables of the partitions."""

    def changelog_offset(self, partition: int) -> int | None:
        """The offset of the last changelog record that is in the table."""
        ...

    def items_of(self, partition: int) -> Iterable[tuple[bytes, bytes]]:
        """Keys and values of a partition."""
        ...

    def unfinished(self, partition: int) -> tuple[Items, int] | None:
        """The items and the number of parts of a large checkpoint that was not written to its end, if there is one."""
        ...


class Claims(Journal, Protocol):
    """The changelog, with the right to write to it."""

    async def claim(self, partitions: Iterable[int]) -> dict[int, int]:
        """Shut out former owners; the offsets of the barriers, where there are any."""
        ...


class Partitions:
    """Claims, opens, feeds, saves and drops partitions. `failure` ends with an error that the worker cannot go on after."""

    def __init__(
        self,
        role: str,
        restore: Restore,
        *,
        journal: Claims,
        sender: Sender,
        metrics: Metrics,
        marked: Callable[[int, int], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = wall_clock,
        turn: float = TURN,
    ) -> None:
        self.role = role
        self.assigned: frozenset[int] = frozenset()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_ready = False
        self.progress = 0
        self.waits_for_brokers = False
        self._restore, self._journal, self._sender, self._metrics, self._marked = restore, journal, sender, metrics, marked
        self._clock, self._now, self._every = clock, now, turn
        self._open: dict[int, Partition] = {}
        self._generation: int | None = None
        self._abandoned = asyncio.Event()
        self._turns: dict[int, asyncio.Task[None]] = {}

    # --- coming and going ------------------------------------------------------------------------------------------

    async def take_over(
        self, partitions: list[int], generation: int, table: LocalTable, recover: Callable[[list[int]], Awaitable[dict[int, int]]]
    ) -> bool:
        """Make `partitions` ours: shut out former owners, then recover, then restore. In this order, or a former owner overtakes.

        `recover` brings the table to the ends of the changelog, and returns them.
        Returns whether they are open; not, if they were to be given up meanwhile.
        Brokers that are away are waited for. Raises FencedError, RecoveryError, NotRecoveredError, the KafkaError of a broker
        that refuses, and what restoring raises.
        """
        began = self._clock()
        self._abandoned = abandoned = asyncio.Event()
        self.assigned, self.is_ready = frozenset(partitions), False
        log.info("%s: assigned %s", self.role, spans(partitions))
        barriers, ends = await self._claimed(partitions, recover)
        opened = {}
        for number in partitions:
            held, needed = table.changelog_offset(number), max(ends[number] - 1, barriers.get(number, -1))
            if (-1 if held is None else held) < needed:
                raise NotRecoveredError(
                    f"{self.role}: partition {number} is recovered to changelog offset {held}, not to {needed}"
                )
            unfinished = table.unfinished(number)
            if unfinished is not None:
                table.commit_batch(number, ERASED, await complete(self._journal, number, *unfinished))
            try:
                fold = await self._restore(number, table.items_of(number), abandoned)
            except AbandonedError:
                return False
            self.progress += 1
            opened[number] = Partition(
                number, fold, journal=self._journal, table=table, sender=self._sender, saved=self._saved, clock=self._clock
            )
            await asyncio.sleep(0)
        if abandoned.is_set():
            return False
        self._open, self._generation, self.is_ready = opened, generation, True
        self._metrics.owned.labels(self.role).set(len(opened))
        if opened:
            log.info("%s: ready, %s open after %.1f s", self.role, spans(partitions), self._clock() - began)
        return True

    async def _claimed(
        self, partitions: list[int], recover: Callable[[list[int]], Awaitable[dict[int, int]]]
    ) -> tuple[dict[int, int], dict[int, int]]:
        wait = FIRST_WAIT
        self.waits_for_brokers = True
        try:
            while True:
                try:
                    barriers = await self._journal.claim(partitions)
                    return barriers, await recover(partitions)
                except (KafkaError, OSError, TimeoutError) as error:
                    if isinstance(error, BrokerResponseError) and not error.retriable:
                        raise
                    said = str(error) or type(error).__name__
                    log.warning("%s: brokers are away (%s); trying to recover again in %.1f s", self.role, said, wait)
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, wait * 2)
        finally:
            self.waits_for_brokers = False

    def suspend(self) -> None:
        """Partitions are about to go: nothing waits any longer."""
        self._abandoned.set()

    async def finish(self) -> None:
        """Save what is unsaved, while the partitions are still ours."""
        results = await asyncio.gather(*[partition.finish() for partition in self._open.values()], return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException):
                self.fail(error)

    def drop(self) -> None:
        """Forget everything about the partitions: what comes next may be another's."""
        if self._open:
            log.info("%s: revoked %s", self.role, spans(sorted(self._open)))
        self.suspend()
        self._open = {}
        self._generation, self.assigned, self.is_ready = None, frozenset(), False
        self._metrics.owned.labels(self.role).set(0)

    # --- feeding ---------------------------------------------------------------------------------------------------

    async def process(self, number: int, generation: int, records: Sequence[Incoming]) -> None:
        """Fold a chunk. One that was fetched under another assignment is left out: it may not follow what was folded last."""
        partition = self._open.get(number)
        if partition is None or generation != self._generation or self.failure.done():
            return
        if 0 < partition.next_offset < records[0].offset:
            missing = records[0].offset - partition.next_offset
            self._metrics.gaps.labels(self.role).inc(missing)
            log.warning(
                "%s: partition %d: %d records before offset %d are missing in the log (retention, or a transaction)",
                self.role, number, missing, records[0].offset,
            )  # fmt: skip
        # Chunks wait here in order while the one before is folded, and are no gap.
        partition.next_offset = max(partition.next_offset, records[-1].offset + 1)
        try:
            count = await partition.process(records)
        except AbandonedError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the state may be ahead of what was sent
            self.fail(error)
            return
        self._metrics.chunks.labels(self.role).inc()
        self._metrics.records.labels(self.role).inc(count)

    async def run(self) -> None:
        """Wake and save, for ever, each partition by itself: one that waits holds up no other."""
        async with asyncio.TaskGroup() as turns:  # none goes on without this
            while True:
                await asyncio.sleep(self._every)
                if self.failure.done() or self._abandoned.is_set():
                    continue
                for number, partition in self._open.items():
                    if number not in self._turns:
                        self._turns[number] = turn = turns.create_task(self._turn(partition))
                        turn.add_done_callback(lambda _, number=number: self._turns.pop(number))  # type: ignore[misc]

    async def _turn(self, partition: Partition) -> None:
        try:
            await partition.wake(self._now())
            if partition.dirty_since is not None and partition.dirty_since <= self._clock() - CHECKPOINT_EVERY:
                await partition.checkpoint()
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """The worker cannot go on after `error`."""
        if not self.failure.done():
            self.failure.set_exception(error)

    # --- looking ---------------------------------------------------------------------------------------------------

    def applied(self) -> dict[int, int]:
        """The last folded offset of every open partition."""
        return {number: partition.fold.applied for number, partition in self._open.items()}

    def waiting(self) -> dict[int, float]:
        """The open partitions that wait for brokers to take what they send, and for how many seconds they have."""
        now = self._clock()
        since = {number: partition.waits_since for number, partition in self._open.items()}
        return {number: now - began for number, began in since.items() if began is not None}

    def folds(self) -> dict[int, Fold]:
        """The folds of the open partitions."""
        return {number: partition.fold for number, partition in self._open.items()}

    def _saved(self, partition: int, marker: int, size: int, seconds: float) -> None:
        self._marked(partition, marker)
        self._metrics.checkpoints.labels(self.role).observe(seconds)
        self._metrics.checkpoint_bytes.labels(self.role).inc(size)


def spans(numbers: Sequence[int]) -> str:
    """Sorted numbers as text: 'partitions 0-3, 6'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if not runs:
        return "no partitions"
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"partition{'s' if len(numbers) > 1 else ''} {text}"
