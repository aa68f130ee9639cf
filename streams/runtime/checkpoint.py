"""One partition, exactly: folded, sent, checkpointed, acknowledged, in that order.

A crash between any two steps gives a replay of records that are skipped (the state is ahead) or decided again with the
same ids (the state is behind). Nothing is remembered before what it led to was sent, and no source offset is committed
before the state that covers it is stored.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Final, Protocol

from streams.records import Fold, Incoming, Outgoing
from streams.runtime.producer import Items
from streams.runtime.staging import append_whole
from streams.topics import CHECKPOINT_LIMIT

FULL: Final = CHECKPOINT_LIMIT // 2
"""Estimated bytes of unsaved state at which a checkpoint is written at once."""
FIRST_STEP: Final = 64
MAX_STEP: Final = 5_000
"""Records that are folded before the loop gets a turn."""


class AbandonedError(RuntimeError):
    """The partition is being taken away while it waits; its records are folded by the next owner."""


class CancelledWaitError(RuntimeError):
    """What a partition waited for was cancelled, by nobody who meant the partition."""


class Journal(Protocol):
    """Where state is stored first: the changelog."""

    async def append(self, partition: int, items: Items) -> int:
        """Store `items` whole or not at all; the offset of the last."""
        ...


class Table(Protocol):
    """Where state is stored next: RocksDB."""

    def commit_batch(self, partition: int, items: Items, changelog_offset: int) -> None:
        """Store `items` and the offset whole or not at all."""
        ...


class Sender(Protocol):
    """Where records go out."""

    async def send_all(self, outgoing: Sequence[Outgoing]) -> Sequence[asyncio.Future[Any]]:
        """Queue records; the futures tell when the brokers have all of them."""
        ...


class Saved(Protocol):
    """Told of a checkpoint."""

    def __call__(self, partition: int, marker: int, size: int, seconds: float) -> None:
        """The state of `partition` up to offset `marker` is stored."""
        ...


class Partition:
    """A fold and what it has not saved yet.

    After an error nothing more is saved, since its state may be ahead of what was sent. Nor is anything folded then, or after a
    chunk that was abandoned: what waits behind it does not follow what was folded last.
    """

    def __init__(
        self, number: int, fold: Fold, *, journal: Journal, table: Table, sender: Sender, saved: Saved, clock: Callable[[], float]
    ) -> None:
        self.number, self.fold = number, fold
        self.next_offset = fold.applied + 1
        self._journal, self._table, self._sender, self._saved, self._clock = journal, table, sender, saved, clock
        self._turn = asyncio.Lock()
        self._acks: list[asyncio.Future[Any]] = []
        self._marker = fold.applied
        self._dirty_since: float | None = None
        self._step = FIRST_STEP
        self._failed = self._ended = False
        self._waits_since: float | None = None

    @property
    def dirty_since(self) -> float | None:
        """When the oldest change that is not saved was made."""
        return self._dirty_since

    @property
    def waits_since(self) -> float | None:
        """Since when it has waited for brokers to take what it sends or saves; None where it does not."""
        return self._waits_since

    async def process(self, records: Sequence[Incoming]) -> int:
        """Fold `records`, send what they lead to, and checkpoint as often as the size of the state asks for it.

        Returns how many were new. Raises AbandonedError, FencedError, KafkaError, and what the fold raises.
        """
        async with self._turn:
            at = first = bisect.bisect_right(records, self.fold.applied, key=attrgetter("offset"))
            while at < len(records):
                part = records[at : at + self._step]
                if self._ended:
                    raise AbandonedError(f"partition {self.number} was given up while these records waited")
                await self._fold(part)
                at += len(part)
                await asyncio.sleep(0)
            return len(records) - first

    async def wake(self, now: int) -> None:
        """Let the fold do what is due at `now`, microseconds."""
        if self._turn.locked() or self._ended:
            return
        async with self._turn:
            with self._guarded():
                outgoing = await self.fold.wake(now)
                if outgoing:
                    await self._send(outgoing)
                    self._touch()

    async def checkpoint(self) -> None:
        """Store what is unsaved. Nothing happens after an error."""
        async with self._turn:
            await self._save()

    async def finish(self) -> None:
        """Store what is unsaved, after the chunks that are here, before the partition goes. Nothing is folded any more."""
        async with self._turn:
            self._ended = True
            await self._save()

    async def _save(self) -> None:
        if self._dirty_since is not None and not self._failed:
            await self._checkpoint()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Take the partition as failed when this is left by an error, other than that it was to be given up anyway."""
        try:
            yield
        except AbandonedError:
            self._ended = True
            raise
        except asyncio.CancelledError as error:
            self._failed = self._ended = True
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # A task that ends by a cancellation ends without a word, and this partition would never be saved again.
            raise CancelledWaitError(f"partition {self.number}: what it waited for was cancelled") from error
        except BaseException:
            self._failed = self._ended = True
            raise

    async def _fold(self, part: Sequence[Incoming]) -> None:
        before = self.fold.dirty_bytes
        with self._guarded():
            await self._send(await self.fold.process(part))
        self._touch()
        dirty = self.fold.dirty_bytes
        grown = max(dirty - before, 0)
        if grown > FULL // 4:
            self._step = max(1, len(part) * (FULL // 8) // grown)
        elif len(part) == self._step:
            self._step = min(MAX_STEP, self._step * 2)
        if dirty >= FULL:
            await self._checkpoint()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._waits_since = self._clock()
        try:
            yield
        finally:
            self._waits_since = None

    async def _send(self, outgoing: Sequence[Outgoing]) -> None:
        with self._waiting():
            self._acks += await self._sender.send_all(outgoing)

    def _touch(self) -> None:
        if self._dirty_since is None:
            self._dirty_since = self._clock()

    async def _checkpoint(self) -> None:
        began = self._clock()
        with self._guarded():
            acks, self._acks = self._acks, []
            with self._waiting():
                await asyncio.gather(*acks)
                marker = self.fold.applied
                items = self.fold.take_dirty()
                offset = await append_whole(self._journal, self.number, items)
            self._table.commit_batch(self.number, items, offset)
        self._marker, self._dirty_since = marker, None
        self._saved(self.number, marker, sum(len(key) + len(value or b"") for key, value in items), self._clock() - began)
