"""The worker process: what `tocsin run` does, from the first line of the log to the last."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

from streams.kernel.state_version import StateVersionError
from streams.notifier.cooldown import CooldownError, FailOpenCooldowns, open_cooldowns
from streams.operations.health import HealthServer, why_not_ready
from streams.operations.metrics import Metrics
from streams.runtime import logs, memory
from streams.runtime.app import LostStateError, ReplacedLogError
from streams.runtime.preflight import (
    StartError,
    check_configs,
    check_data_dir,
    check_topics,
    partition_counts,
    until_repartitioned,
)
from streams.runtime.producer import FencedError, Outbox
from streams.runtime.recovery import RecoveryError
from streams.runtime.roles import CrashedError, Role, engine, notifier
from streams.runtime.rulesets import MissingRulesetError
from streams.runtime.stacks import stacks
from streams.runtime.store import BrokenStoreError, LocalDiskError
from streams.runtime.watchdog import Pulse, StuckError
from streams.settings import Settings, SettingsError
from streams.topics import ENGINE, NOTIFIER

log = logging.getLogger("tocsin.worker")

CHANNELS_WITHIN: Final = 6.0
"""Seconds that channels get to end what they are about."""
THREADS_WITHIN: Final = 1.0
END_WITHIN: Final = 9.5
"""Seconds after which a worker that was told to end does so, whatever still waits."""


class UnsavedError(RuntimeError):
    """The worker was told to end, and could not save what it had done last."""


_EXPLAINED: Final = (
    StartError, SettingsError, FencedError, RecoveryError, ReplacedLogError, LostStateError, MissingRulesetError, StuckError,
    CooldownError, BrokenStoreError, LocalDiskError, StateVersionError, UnsavedError,
)  # fmt: skip
"""Errors whose message says all; others are logged with their trace."""
GIVE_BACK_EVERY: Final = 20.0
"""Seconds between two times that memory is given back."""
_GC: Final = (50_000, 20, 100)


def run(settings: Settings, *, only: str | None, log_format: str) -> int:
    """Run the worker until SIGTERM or SIGINT; a second one ends it at once.

    Returns the exit status: 0 ended in order, 1 could not go on, or could not save and commit everything.

    `only` is "engine" or "notifier"; `log_format` is "text" or "json".
    """
    memory.keep_together()
    logs.configure(log_format)
    faulthandler.enable()  # machine code that is stopped at a bound says where
    log.info("settings: %s", " ".join(f"{name}={value}" for name, value in settings.shown().items() if value))
    if not settings.control_key:
        log.warning("TOCSIN_CONTROL_KEY is empty: whoever may write events may switch rules; for brokers on this machine only")
    if settings.fencing == "off":
        log.warning(
            "TOCSIN_FENCING=off: a worker that was suspended and replaced may overwrite the state of its successor, and without "
            "LogAppendTime the clocks of producers decide what is late; for trials only"
        )
    status = asyncio.run(_to_the_end(Worker(settings, (only,) if only else (ENGINE, NOTIFIER))))
    _leave_threads_behind(status)
    return status


async def _to_the_end(worker: Worker) -> int:
    status = await worker.run()
    if status:
        _leave(status)  # what could not end would say so once more, with traces, and keep the loop
    return status


class Worker:
    """One process: the roles that run in it, and what they share."""

    def __init__(self, settings: Settings, roles: Sequence[str]) -> None:
        self._settings, self._wanted = settings, roles
        self._metrics = Metrics()
        self._roles: list[Role] = []
        self._cooldowns: FailOpenCooldowns | None = None
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Work until told to end; the exit status."""
        loop = asyncio.get_running_loop()
        self._metrics.tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        self._handle_signals(loop)
        work = asyncio.ensure_future(self._work())
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done() and not self._roles:
            _end_within(END_WITHIN)
            work.cancel()  # still waiting for a broker, or for Redis
        try:
            await work
        except asyncio.CancelledError:
            log.info("told to end before the start was complete")
        except Exception as error:
            log.error("the worker ends: %s", said(error), exc_info=None if isinstance(error, _EXPLAINED) else error)
            return 1
        log.info("ended in order")
        return 0

    async def _work(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            await self._serve_health(stack)
            check_data_dir(self._settings)
            counts = check_topics(self._settings, await partition_counts(self._settings), self._wanted)
            await check_configs(self._settings, self._wanted)
            cooldowns = await self._open_cooldowns(stack) if NOTIFIER in self._wanted else None
            outbox = Outbox(self._settings, self._metrics)
            stack.push_async_callback(outbox.stop)
            await outbox.start()
            self._roles = self._build(counts, outbox, cooldowns)
            await self._supervise(counts[ENGINE])

    def _build(self, counts: Mapping[str, int], outbox: Outbox, cooldowns: FailOpenCooldowns | None) -> list[Role]:
        roles = []
        if ENGINE in self._wanted:
            roles.append(engine(self._settings, counts[ENGINE], outbox, self._metrics))
        if cooldowns is not None:
            roles.append(notifier(self._settings, counts[NOTIFIER], outbox, self._metrics, cooldowns, self._stop))
        return roles

    async def _supervise(self, partitions: int) -> None:
        """Run until told to end, or until a service ends, which none should. Then stop them all, in order."""
        services = [asyncio.ensure_future(service()) for role in self._roles for service in role.services()]
        services.append(asyncio.ensure_future(self._settle()))
        services.append(asyncio.ensure_future(until_repartitioned(self._settings, partitions)))
        services.append(asyncio.ensure_future(Pulse().run()))
        if self._cooldowns is not None:
            services.append(asyncio.ensure_future(self._cooldowns.watch()))
        channels = [asyncio.ensure_future(deliver()) for role in self._roles for deliver in role.channels]
        stopping = asyncio.ensure_future(self._stop.wait())
        done, _ = await asyncio.wait([*services, *channels, stopping], return_when=asyncio.FIRST_COMPLETED)
        failed = next((task for task in done if task is not stopping), None)
        if failed is not None:
            log.error("stopping: %s", said(failed.exception()))
        self._stop.set()
        _end_within(END_WITHIN)
        stops = [asyncio.ensure_future(role.stop()) for role in self._roles]
        await asyncio.wait([*stops, *channels], timeout=CHANNELS_WITHIN)
        in_order = all([await stop for stop in stops])
        for task in (*services, *channels, stopping):
            task.cancel()
        await asyncio.gather(*services, *channels, stopping, return_exceptions=True)
        if failed is not None:
            failed.result()
            raise CrashedError("a service ended by itself")
        for role in self._roles:
            failure = role.app.partitions.failure
            if failure.done() and not failure.cancelled():
                failure.result()
        if not in_order:
            raise UnsavedError("what was done since the last checkpoint was not saved; the next start does it again")

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        told = False

        def tell(_number: int, _frame: FrameType | None) -> None:
            nonlocal told
            if told:
                os.write(2, b"told to end once more: the worker ends at once\n")
                os._exit(1)
            told = True
            loop.call_soon_threadsafe(self._stop.set)

        def show(_number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(lambda: log.warning("SIGUSR1: where everything stands\n%s", stacks()))

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, tell)
        signal.signal(signal.SIGUSR1, show)

    async def _settle(self) -> None:
        """Keep the garbage collector from walking through what is up for good; give back memory now and then."""
        while not all(role.app.partitions.is_ready for role in self._roles):  # noqa: ASYNC110 - true once, and nobody waits
            await asyncio.sleep(0.2)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC)
        while True:
            await asyncio.sleep(GIVE_BACK_EVERY)
            await asyncio.to_thread(memory.give_back)

    async def _open_cooldowns(self, stack: contextlib.AsyncExitStack) -> FailOpenCooldowns:
        cooldowns = self._cooldowns = open_cooldowns(self._settings)
        stack.push_async_callback(cooldowns.close)
        warning = await cooldowns.check()
        if warning:
            log.warning("%s", warning)
        return cooldowns

    async def _serve_health(self, stack: contextlib.AsyncExitStack) -> None:
        port = int(self._settings.metrics_port)
        if not port:
            return
        server = HealthServer(port, ready=self._why_not_ready, metrics=self._metrics.text)
        try:
            await server.start()
        except OSError as error:
            raise StartError(
                f"port {port} of the loopback is taken ({error.strerror}); set TOCSIN_METRICS_PORT to another, or to 0 for none"
            ) from error
        stack.push_async_callback(server.stop)

    def _why_not_ready(self) -> str | None:
        if self._stop.is_set():
            return "stopping"
        without_redis = self._cooldowns is not None and self._cooldowns.is_degraded
        return why_not_ready([role.health() for role in self._roles], without_redis=without_redis)


def _leave(status: int) -> None:
    """End the process here."""
    logging.shutdown()
    os._exit(status)


def _leave_threads_behind(status: int) -> None:
    """End the process here if a thread does not: that of a consumer whose broker is gone would keep it alive for ever."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(THREADS_WITHIN)
            if thread.is_alive():
                _leave(status)


def _end_within(seconds: float) -> None:
    """End the process after `seconds`, also when the loop or a thread waits for what does not come."""

    def end() -> None:
        log.error("the worker ends: it was not done within %.1f s of being told to; what was not saved is done again", seconds)
        _leave(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def said(error: BaseException | None) -> str:
    """The message of an error, or its name where it has none."""
    if error is None:
        return "a service ended by itself"
    text = str(error)
    return text if isinstance(error, _EXPLAINED) and text else f"{type(error).__name__}: {text}" if text else type(error).__name__
