"""The Faust application of a role: one agent over the partitions of one topic, and one table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import faust
from faust.types import TP

from streams.operations.metrics import Metrics
from streams.runtime import store, transport
from streams.runtime.partitions import Partitions, Restore
from streams.runtime.producer import Changelog, Outbox
from streams.runtime.recovery import ChunkTableManager, recover
from streams.runtime.store import AtomicStore, BrokenStoreError
from streams.settings import Settings
from streams.topics import ENGINE, EVENTS, TRANSITIONS, group_name

log = logging.getLogger("tocsin.runtime")

TABLE: Final = "state"
"""The name that changelogs are called after: see streams.topics.changelog_name."""
REBALANCE_TIMEOUT: Final = 30.0
BUFFER: Final = 4_096
"""Chunks that a stream may hold. The consumer keeps it to a few, so it never fills."""


class RoleApp(faust.App):
    """A Faust app that knows the partitions it feeds."""

    settings: Settings
    role: str
    source: str
    journal: Changelog
    partitions: Partitions
    metrics: Metrics
    table: Any

    @property
    def feed(self) -> transport.Consumer:
        """The consumer."""
        return cast(transport.Consumer, self.consumer)

    @property
    def store(self) -> AtomicStore:
        """The local tables."""
        return cast(AtomicStore, self.table.data)

    async def take_over(self, partitions: list[int], generation: int) -> None:
        """Called at each assignment, before the first record. Does not return where the partitions cannot be opened."""

        async def recovered(numbers: list[int]) -> dict[int, int]:
            return await recover(self.settings, self.role, self.journal.topic, numbers, self.store, self._moved, self._left)

        try:
            try:
                done = await self.partitions.take_over(partitions, generation, self.store, recovered)
            except BrokenStoreError as error:  # what is broken was put aside; a second time it is the disk that is broken
                log.warning("%s: %s", self.role, error)
                done = await self.partitions.take_over(partitions, generation, self.store, recovered)
            if done:
                await self._check_source()
        except Exception as error:  # noqa: BLE001 - whatever it is, no record may be folded after it
            self.partitions.fail(error)
            done = False
        if not done:
            await asyncio.Event().wait()  # until the next assignment, or the end of the worker, cancels this

    async def _check_source(self) -> None:
        """Whether the source is the log that the state was made from, and the state what was made from it."""
        applied = self.partitions.applied()
        places = {TP(self.source, number): number for number in applied}
        if not places:
            return
        if self.settings.fencing == "on":  # the embedded broker says where the last batch begins, not where it ends
            for place, end in (await self.consumer.highwaters(*places)).items():
                check_end(TP(*place), applied[places[TP(*place)]], end)
        empty = [place for place, number in places.items() if applied[number] < 0]
        if empty:
            begins = await self.consumer.earliest_offsets(*empty)
            for place in empty:
                check_lost(place, await self.feed.committed(place), begins[place], self.journal.topic)

    def _left(self, partition: int, records: int) -> None:
        self.metrics.recovering.labels(self.role, str(partition)).set(records)

    def _moved(self) -> None:
        self.partitions.progress += 1

    def lag(self) -> dict[int, int]:
        """Records between what was folded and the end, by open partition, as of the last fetch."""
        found = {}
        for number, applied in self.partitions.applied().items():
            end = self.feed.end(TP(self.source, number))
            if end is not None:
                found[number] = max(end - applied - 1, 0)
        return found


class ReplacedLogError(RuntimeError):
    """The topic that a role reads is not the one that its state was made from."""


def check_end(place: TP, applied: int, end: int) -> None:
    """Raise ReplacedLogError where a partition ends before what was folded: new records would be taken for old ones."""
    if applied >= end:
        raise ReplacedLogError(
            f"{place.topic}[{place.partition}] ends at offset {end}, and its state holds records up to {applied}: the topic was "
            "deleted and created again, or lost its end. To start from it, set a new TOCSIN_GROUP and delete the topics of "
            "transitions and of alert state, which tell of the former one, or set a new TOCSIN_TOPIC_PREFIX; then run "
            "`tocsin topics` and `tocsin deploy --again`"
        )


class LostStateError(RuntimeError):
    """The state of a partition is gone, and the log does not reach back far enough to make it again."""


def check_lost(place: TP, committed: int | None, begin: int, changelog: str) -> None:
    """Say so where records of `place` were committed, and there is no state that they led to.

    The source is read from its `begin` then: the same state comes of it if that is its first record. Raises LostStateError
    if it is not.
    """
    if not committed:
        return
    gone = (
        f"{changelog}[{place.partition}] holds no state, and records of {place.topic}[{place.partition}] up to {committed - 1} "
        "were processed: the changelog was deleted, or deleted and created again"
    )
    if begin > 0:
        raise LostStateError(
            f"{gone}. The log begins at offset {begin}, so the state cannot be made again from it. Restore the changelog from a "
            "backup, or set a new TOCSIN_GROUP and run `tocsin topics` and `tocsin deploy --again` to start from what is left"
        )
    log.warning("%s. The log is whole, so the state is made again from it; decisions are sent again under their known ids", gone)


def build_app(
    settings: Settings,
    role: str,
    restore: Restore,
    *,
    partitions: int,
    outbox: Outbox,
    metrics: Metrics,
) -> RoleApp:
    """The app of `role`, on a topic with so many `partitions`.

    Call it in the running loop. Topics are expected to exist.
    """
    session = float(settings.session_timeout)
    folder = Path(settings.data_dir) / role
    folder.mkdir(parents=True, exist_ok=True)
    app = RoleApp(
        group_name(settings.group, role),
        broker=f"{transport.SCHEME}://kafka",
        store=f"{store.SCHEME}://",
        datadir=str(folder),
        TableManager=ChunkTableManager,
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
        stream_buffer_maxsize=BUFFER,
        broker_commit_interval=1.0,
        broker_session_timeout=session,
        broker_heartbeat_interval=min(3.0, session / 5),
        broker_rebalance_timeout=max(REBALANCE_TIMEOUT, session),
        broker_request_timeout=max(30.0, session + 5),
        consumer_group_instance_id=f"{settings.instance}-{role}" if settings.instance else None,
        loghandlers=[],
    )
    app.settings, app.role, app.metrics = settings, role, metrics
    app.source = settings.topic_prefix + (EVENTS if role == ENGINE else TRANSITIONS).name
    app.journal = Changelog(settings, role)
    app.partitions = Partitions(role, restore, journal=app.journal, sender=outbox, metrics=metrics, marked=_marker_of(app))
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "partitions": partitions}
    topic = app.topic(app.source, key_serializer="raw", value_serializer="raw", **raw)
    app.table = app.Table(TABLE, options=dict(store.OPTIONS), **raw)

    async def fold(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            feeding = asyncio.create_task(feed(message, event.value))
            fed.add(feeding)
            feeding.add_done_callback(fed.discard)

    async def feed(message: Any, records: Any) -> None:
        try:
            await app.partitions.process(message.partition, message.generation_id, records)
        finally:
            app.feed.done(message.tp, message.offset)

    fed: set[asyncio.Task[None]] = set()
    app.agent(topic, name=f"{role}-fold", concurrency=1)(fold)
    return app


def _marker_of(app: RoleApp) -> Callable[[int, int], None]:
    def marked(partition: int, marker: int) -> None:
        app.feed.mark(TP(app.source, partition), marker)

    return marked
