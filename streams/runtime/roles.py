"""The engine and the notifier, put together: what each needs beside its Faust application."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from streams.channel_names import UnservedChannels
from streams.decode import Source
from streams.notifier.channels import open_channels
from streams.notifier.channels.channel import Channel
from streams.notifier.channels.delivery import deliver
from streams.notifier.cooldown import FailOpenCooldowns
from streams.notifier.former import FormerDecisions
from streams.notifier.partition import NotifierPartition, make_fold
from streams.operations.health import RoleHealth
from streams.operations.metrics import DeliveryMetrics, Metrics, NotifierMetrics
from streams.records import Fold, Outgoing
from streams.runtime.app import RoleApp, build_app
from streams.runtime.ends import Ends
from streams.runtime.engine import EngineFold
from streams.runtime.producer import Outbox
from streams.runtime.rulesets import Rulesets
from streams.runtime.stacks import stacks
from streams.runtime.ticker import EVERY as TICK_EVERY
from streams.runtime.ticker import Ticker
from streams.runtime.watchdog import EVERY as WATCH_EVERY
from streams.runtime.watchdog import Standing, StuckError, Watchdog
from streams.settings import Settings
from streams.topics import ENGINE, EVENTS, NOTIFIER, RULES

log = logging.getLogger("tocsin.runtime")

REMIND_AFTER: Final = 5.0
STOP_WITHIN: Final = 6.0
PATIENCE: Final = 5.0
"""Seconds for which a partition may wait for brokers before the role is no longer ready."""
_LOOK_EVERY: Final = 0.5


class CrashedError(RuntimeError):
    """Faust gave up."""


@dataclass(slots=True)
class Role:
    """A role at work: its application, tasks beside it that never end, and channels, which end when the worker is told to.

    An error in any of them ends the worker.
    """

    app: RoleApp
    metrics: Metrics
    tasks: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    channels: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    is_waiting: Callable[[], bool] = lambda: False
    _shown: set[int] = field(default_factory=set)
    _answered: bool = True

    @property
    def name(self) -> str:
        """The role."""
        return self.app.role

    def services(self) -> list[Callable[[], Awaitable[None]]]:
        """Everything that is to run, for ever."""
        return [self._start, self.app.partitions.run, self._look, self._watch, self._fail, *self.tasks]

    async def stop(self) -> bool:
        """Save, commit, leave the group. Takes at most STOP_WITHIN seconds, and then leaves it to the next owner.

        Returns whether all was saved and committed.
        """
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await self.app.stop()
                await self.app.journal.close()
        except TimeoutError:
            log.warning(
                "%s: did not stop in order within %.0f s: brokers did not take the last checkpoint", self.name, STOP_WITHIN
            )
            return False
        return True

    def health(self) -> RoleHealth:
        """How the role stands."""
        partitions, lag = self.app.partitions, self.app.lag()
        return RoleHealth(
            role=self.name,
            assigned=len(partitions.assigned),
            recovering=0 if partitions.is_ready else len(partitions.assigned),
            lag=max(lag.values(), default=None),
            is_rebalancing=not partitions.is_ready and not partitions.assigned,
            is_cut_off=not self._answered or max(partitions.waiting().values(), default=0.0) > PATIENCE,
        )

    async def _start(self) -> None:
        await self.app.start()
        await asyncio.Event().wait()

    async def _fail(self) -> None:
        await self.app.partitions.failure

    async def _look(self) -> None:
        lags, offsets = self.metrics.lag, self.metrics.offset
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if self.app.crashed:
                raise CrashedError(f"{self.name}: {self.app.crash_reason!r}") from self.app.crash_reason
            applied, lag = self.app.partitions.applied(), self.app.lag()
            for number in self._shown - applied.keys():
                lags.remove(self.name, str(number))
                offsets.remove(self.name, str(number))
            self._shown = set(applied)
            for number, offset in applied.items():
                offsets.labels(self.name, str(number)).set(offset)
                lags.labels(self.name, str(number)).set(lag.get(number, 0))

    async def _watch(self) -> None:
        watchdog, ends = Watchdog(time.monotonic), Ends(self.app.settings)
        try:
            while True:
                await asyncio.sleep(WATCH_EVERY)
                problem = watchdog.look(await self._standings(ends))
                if problem is not None:
                    log.error("%s\n%s", problem, stacks())
                    raise StuckError(problem)
        finally:
            await ends.close()

    async def _standings(self, ends: Ends) -> dict[str, Standing]:
        """How the partitions stand whose progress depends on this worker alone."""
        partitions = self.app.partitions
        # A consumer that has stopped fetching believes that there is nothing more, so the broker is asked.
        found = await ends.of(self.app.source, partitions.assigned)
        self._answered = found is not None
        if found is None or self.is_waiting():
            return {}
        if not partitions.is_ready:
            restoring = 0 if partitions.waits_for_brokers else len(partitions.assigned)
            return {f"{self.name}: recovery": Standing(partitions.progress, restoring)}
        waiting = partitions.waiting()
        return {
            f"{self.name}: partition {number} of {self.app.source}": Standing(offset, found.get(number, 0) - offset - 1)
            for number, offset in partitions.applied().items()
            if number not in waiting
        }


def engine(settings: Settings, partitions: int, outbox: Outbox, metrics: Metrics) -> Role:
    """The engine on an event topic with so many partitions."""
    rulesets = Rulesets(settings.topic_prefix + RULES.name, metrics.unreadable_rulesets.inc)
    topic = settings.topic_prefix + EVENTS.name
    key = settings.control_key.encode() or None

    async def restore(partition: int, items: Iterable[tuple[bytes, bytes]], abandoned: asyncio.Event) -> Fold:
        source = Source(topic, partition, partitions, key)
        return await EngineFold.restore(source, items, rulesets, metrics, abandoned, int(settings.max_groups))

    app = build_app(settings, ENGINE, restore, partitions=partitions, outbox=outbox, metrics=metrics)

    def groups() -> int:
        return sum(fold.group_count for fold in app.partitions.folds().values() if isinstance(fold, EngineFold))

    metrics.groups.set_function(groups)

    async def send(tick: Outgoing) -> None:
        sent = await outbox.send(tick)
        sent.add_done_callback(lambda done: _fail_on_error(app, done))
        metrics.ticks.inc()

    async def tick() -> None:
        ticker = Ticker(send, time.monotonic)
        while True:
            await asyncio.sleep(TICK_EVERY)
            await ticker.look(app.partitions.applied(), app.lag())

    async def follow() -> None:
        await rulesets.follow(settings)

    async def remind() -> None:
        folds: list[EngineFold] = []
        while not folds:
            await asyncio.sleep(REMIND_AFTER)
            folds = [fold for fold in app.partitions.folds().values() if isinstance(fold, EngineFold)]
        if all(fold.ruleset_id is None for fold in folds):
            log.warning("engine: no ruleset is active, so nothing can alert; run `tocsin deploy rules/`")
        await asyncio.Event().wait()

    return Role(app, metrics, [follow, tick, remind], is_waiting=lambda: rulesets.waiting > 0)


def notifier(
    settings: Settings, partitions: int, outbox: Outbox, metrics: Metrics, cooldowns: FailOpenCooldowns, stop: asyncio.Event
) -> Role:
    """The notifier on a topic of transitions with so many partitions. Its channels end when `stop` is set."""

    async def restore(partition: int, items: Iterable[tuple[bytes, bytes]], _abandoned: asyncio.Event) -> Fold:
        return make(partition, items)

    app = build_app(settings, NOTIFIER, restore, partitions=partitions, outbox=outbox, metrics=metrics)
    unserved = UnservedChannels(log, settings.webhook_url)
    former = FormerDecisions(settings, time.monotonic)
    make = make_fold(settings, cooldowns, app.journal, clock, NotifierMetrics(metrics, unserved), former.read)

    async def show() -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            folds = [fold for fold in app.partitions.folds().values() if isinstance(fold, NotifierPartition)]
            held = sum(fold.held_episodes for fold in folds)
            metrics.alerts.labels("held").set(held)
            metrics.alerts.labels("firing").set(sum(fold.open_episodes for fold in folds) - held)

    async def run_channel(name: str, channel: Channel) -> None:
        try:
            await deliver(channel, name, settings, stop, DeliveryMetrics(metrics))
        finally:
            await channel.close()

    deliveries = [partial(run_channel, name, channel) for name, channel in open_channels(settings, clock).items()]
    return Role(app, metrics, [show], [*deliveries])


def clock() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def _fail_on_error(app: RoleApp, done: asyncio.Future[Any]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        app.partitions.fail(error)
