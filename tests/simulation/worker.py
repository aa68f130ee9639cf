"""A worker: a process on a machine that runs both roles, and is started again when it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from schemas.rule import Ruleset
from streams.decode import Source
from streams.notifier.cooldown import FailOpenCooldowns, LocalCooldowns
from streams.notifier.partition import NotifierPartition
from streams.operations.metrics import Metrics
from streams.records import Fold
from streams.runtime.engine import EngineFold
from streams.runtime.partitions import Partitions
from streams.runtime.recovery import read_changelogs
from streams.runtime.rulesets import Rulesets
from streams.settings import Settings
from streams.testing import START
from streams.topics import ENGINE, EVENTS, NOTIFIER, TRANSITIONS
from tests.faults.log import Logged
from tests.faults.state import fold_changelog
from tests.simulation.broker import Broker, Record
from tests.simulation.disk import Disk, SimulatedStore
from tests.simulation.group import SESSION, Group
from tests.simulation.process import Process, SimulatedChangelog, SimulatedConsumer, SimulatedOutbox
from tests.simulation.redis import Redis, SimulatedCooldowns

TURN: Final = 0.25
BATCH: Final = 64 << 10
"""Bytes that the broker takes at once; checkpoints are staged long before."""
METRICS: Final = Metrics()
SOURCES: Final = {ENGINE: EVENTS.name, NOTIFIER: TRANSITIONS.name}


class KnownRulesets(Rulesets):
    """The rulesets of the world; all documents have come."""

    def __init__(self, known: dict[str, Ruleset]) -> None:
        super().__init__("rules")
        self._known = known

    def ruleset(self, id: str) -> Ruleset | None:
        return self._known.get(id)


@dataclass
class World:
    """What workers share."""

    choices: random.Random
    broker: Broker
    redis: Redis
    groups: dict[str, Group]
    rulesets: dict[str, Ruleset]
    settings: Settings
    taking_over: Callable[[], None] = lambda: None
    happened: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Note what happened, and when."""
        self.happened.append(f"{asyncio.get_running_loop().time():8.3f} {text}")


class Worker:
    """A machine, and the process on it. `skew` is what its wall clock is wrong by, in microseconds."""

    def __init__(self, world: World, name: str, arm: Callable[[Process], None]) -> None:
        self.world, self.name, self._arm = world, name, arm
        self.disk: Disk = {}
        self.backup: Disk | None = None
        self.skew = 0
        self.process: Process | None = None
        self.roles: dict[str, Partitions] = {}
        self.outbox: SimulatedOutbox | None = None
        self.is_wanted = True
        self.down_for = 0.05
        self.before_start: Callable[[Worker], None] = lambda _: None
        self.starts = 0

    async def run(self) -> None:
        """Start the process again whenever it has ended."""
        while True:
            while not self.is_wanted:
                await asyncio.sleep(0.2)
            self.before_start(self)
            self.starts += 1
            process = self.process = Process(f"{self.name}{self.starts}", self.world.broker, self.world.choices)
            process.frozen = self._silent
            self._arm(process)
            process.spawn(self._work(process))
            await process.died
            self.roles, self.outbox = {}, None
            self._silent()
            await asyncio.sleep(self.down_for)

    def now(self) -> int:
        """Its wall clock, microseconds."""
        return START + int(asyncio.get_running_loop().time() * 1e6) + self.skew

    def _silent(self) -> None:
        """The groups hear nothing of this process from now on; unless that changes in time, they go on without it."""
        process = self.process
        assert process is not None

        def expire() -> None:
            if process.is_dead or process.is_frozen:
                for role, group in self.world.groups.items():
                    group.leave(f"{process.name}/{role}")

        asyncio.get_running_loop().call_later(SESSION, expire)

    # --- the process -----------------------------------------------------------------------------------------------

    async def _work(self, process: Process) -> None:
        world = self.world
        outbox = self.outbox = SimulatedOutbox(process)
        loop = asyncio.get_running_loop()

        def micros() -> int:
            return int(loop.time() * 1e6)

        cooldowns = FailOpenCooldowns(
            SimulatedCooldowns(world.redis, process.pause), LocalCooldowns(micros, per_minute=10_000), micros
        )

        async def engine(number: int, items: Iterable[tuple[bytes, bytes]], abandoned: asyncio.Event) -> Fold:
            source = Source(EVENTS.name, number, world.broker.partitions[EVENTS.name])
            return await EngineFold.restore(source, items, KnownRulesets(world.rulesets), METRICS, abandoned)

        journals = {role: SimulatedChangelog(world.settings, role, process, BATCH) for role in (ENGINE, NOTIFIER)}

        async def notifier(number: int, items: Iterable[tuple[bytes, bytes]], _abandoned: asyncio.Event) -> Fold:
            return NotifierPartition.restore("", number, items, cooldowns=cooldowns, journal=journals[NOTIFIER], clock=self.now)

        failures = []
        for role, restore in ((ENGINE, engine), (NOTIFIER, notifier)):
            journal = journals[role]
            partitions = Partitions(
                role, restore, journal=journal, sender=outbox, metrics=METRICS, marked=lambda *_: None,
                clock=loop.time, now=self.now, turn=TURN,
            )  # fmt: skip
            self.roles[role] = partitions
            failures.append(partitions.failure)
            process.spawn(partitions.run())
            failures.append(process.spawn(self._serve(process, role, partitions, journal)))
        done, _ = await asyncio.wait(failures, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            world.say(f"{self.name} ends: {each.exception()!r}")
        process.kill()

    async def _serve(self, process: Process, role: str, partitions: Partitions, journal: SimulatedChangelog) -> None:
        """Join the group, take over what it gives, fold, and hand back when it changes; again and again."""
        world, group = self.world, self.world.groups[role]
        member = f"{process.name}/{role}"
        store = SimulatedStore(self.disk, role, process.step_now)

        async def recover(numbers: list[int]) -> dict[int, int]:
            return await read_changelogs(SimulatedConsumer(process), role, journal.topic, numbers, store, lambda: None)

        while True:
            await process.step()
            generation, numbers = await group.join(member)
            await process.step()
            world.taking_over()
            taking = process.spawn(partitions.take_over(numbers, generation, store, recover))
            while not taking.done() and group.is_current(member, generation):
                await asyncio.wait(
                    [taking, changed := process.spawn(world.broker.changed())], return_when=asyncio.FIRST_COMPLETED
                )
                changed.cancel()
            await process.step()
            partitions_open = taking.done() and taking.result()
            if not taking.done():
                partitions.suspend()
                taking.cancel()
            if partitions_open:
                self._check_recovered(numbers, journal, store)
                await self._fold(process, role, partitions, generation, member)
            partitions.suspend()
            await partitions.finish()
            await process.step()
            partitions.drop()
            if not self.is_wanted:
                group.leave(member)
                process.kill()

    def _check_recovered(self, numbers: list[int], journal: SimulatedChangelog, store: SimulatedStore) -> None:
        """Who opens a partition that nobody else has claimed since holds all that the changelog says."""
        for number in numbers:
            log = self.world.broker.logs[journal.topic, number]
            if journal.is_last(number, log):
                if store.unfinished(number) is not None:
                    self.world.wrong.append(
                        f"{self.name} leaves a checkpoint of partition {number} of {journal.topic} unfinished"
                    )
                held = dict(store.items_of(number))
                said = fold_changelog(as_logged(record) for record in log.records).get(number, {})
                if held != said:
                    keys = sorted(key for key in held.keys() | said.keys() if held.get(key) != said.get(key))
                    self.world.wrong.append(f"{self.name} opens partition {number} of {journal.topic} without {keys}")

    async def _fold(self, process: Process, role: str, partitions: Partitions, generation: int, member: str) -> None:
        broker, group, topic = self.world.broker, self.world.groups[role], SOURCES[role]
        positions = {number: applied + 1 for number, applied in partitions.applied().items()}
        while group.is_current(member, generation) and self.is_wanted:
            await process.step()
            waiting = [number for number, position in positions.items() if broker.logs[topic, number].end > position]
            if not waiting:
                if group.is_current(member, generation) and self.is_wanted:  # it may have stood still at the step
                    await broker.changed()
                continue
            number = process.choices.choice(waiting)
            log, position = broker.logs[topic, number], positions[number]
            records = await process.call(partial(log.read, position, process.choices.choice((1, 3, 8, 20))), harmless=True)
            if records:
                positions[number] = records[-1].offset + 1
                await partitions.process(number, generation, records)
                if process.slow and process.choices.random() < 0.05:  # records come once more
                    positions[number] = max(positions[number] - 4, 0)


def as_logged(record: Record) -> Logged:
    """A record as the verdict of the fault tests takes it."""
    return Logged(record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)
