"""One world, from one seed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from unittest.mock import patch

from streams.runtime import producer, staging
from streams.settings import Settings
from streams.topics import ALERT_STATE, ALERTS, DEAD_LETTERS, ENGINE, EVENTS, MIB, NOTIFIER, TRANSITIONS, changelog_name
from tests.simulation.broker import Broker
from tests.simulation.group import Group
from tests.simulation.load import RULESETS, Load
from tests.simulation.loop import SimulatedLoop
from tests.simulation.process import Process
from tests.simulation.redis import Redis
from tests.simulation.verdict import differences
from tests.simulation.worker import Worker, World

SETTINGS: Final = Settings(group="sim")
FAULTY_FOR: Final = 8.0
SETTLE_WITHIN: Final = 120.0
KINDS: Final = ("crash", "freeze", "rebalance", "lost disk", "old disk", "compaction", "redis", "clock", "network")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a world. `story` tells what happened, and when; `digest` is of all that was appended."""

    seed: int
    differences: tuple[str, ...]
    counts: Counter[str]
    story: tuple[str, ...]
    digest: int

    def told(self) -> str:
        """How to repeat it, what happened, and what is wrong."""
        lines = [
            f"seed {self.seed} leaves {len(self.differences)} differences; make simulate SEED={self.seed} repeats it",
            *self.story,
        ]
        return "\n".join([*lines, *(f"  {difference[:2_000]}" for difference in self.differences)])


def simulate(seed: int) -> Outcome:
    """Play the world of `seed`, and compare."""
    choices = random.Random(seed)
    loop = SimulatedLoop(random.Random(seed + 1))
    loop.set_exception_handler(lambda *_: None)
    logging.disable(logging.CRITICAL)
    try:
        asyncio.events._set_running_loop(None)
        return loop.run_until_complete(_World(seed, choices).play())
    finally:
        logging.disable(logging.NOTSET)
        _close(loop)


def _close(loop: SimulatedLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@contextlib.contextmanager
def _batches_of(size: int) -> Iterator[None]:
    """Checkpoints beyond `size` bytes are staged."""
    with (
        patch.object(producer, "CHECKPOINT_LIMIT", size),
        patch.object(staging, "_ROOM", size - min(1_024, size // 3)),
    ):
        yield


class _World:
    def __init__(self, seed: int, choices: random.Random) -> None:
        self.seed, self.choices = seed, choices
        self.faults = {kind for kind in KINDS if choices.random() < 0.4}
        self.healed = False
        self.injected: Counter[str] = Counter()

    async def play(self) -> Outcome:
        choices = self.choices
        loop = asyncio.get_running_loop()
        events, transitions = choices.randint(2, 4), choices.randint(1, 2)
        partitions = {topic.name: 1 for topic in (ALERTS, ALERT_STATE, DEAD_LETTERS)}
        partitions |= {EVENTS.name: events, TRANSITIONS.name: transitions}
        partitions |= {changelog_name(SETTINGS.group, ENGINE): events, changelog_name(SETTINGS.group, NOTIFIER): transitions}
        broker = Broker(loop.time, partitions)
        groups = {
            ENGINE: Group(events, choices, broker.notify),
            NOTIFIER: Group(transitions, choices, broker.notify),
        }
        limit = choices.choice((400, 1_200, MIB))
        rulesets = {ruleset.id: ruleset for ruleset in RULESETS}
        self.world = World(choices, broker, Redis(loop.time, choices), groups, rulesets, SETTINGS)
        self.workers = [Worker(self.world, name, self._arm) for name in "abc"[: choices.randint(2, 3)]]
        self.world.taking_over = self._wake_zombies
        load = Load(broker, choices, choices.randint(30, 60), FAULTY_FOR)
        with _batches_of(limit):
            tasks = [loop.create_task(worker.run()) for worker in self.workers]
            loading, harming = loop.create_task(load.run()), loop.create_task(self._harm())
            await asyncio.wait([loading, harming])
            loading.result(), harming.result()
            self._heal()
            problem = await self._settle(load)
            for worker in self.workers:
                if worker.process is not None:
                    worker.process.kill()
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        counts = self.injected
        if problem:
            found = [problem]
        else:
            zombies = bool({"freeze", "network"} & self.faults)
            found, told = differences(self.world, faults=bool(self.injected or self.faults), zombies=zombies)
            counts = told + Counter({f"fault: {kind}": number for kind, number in self.injected.items()})
        return Outcome(self.seed, tuple(found), counts, tuple(self.world.happened), self._digest())

    def _digest(self) -> int:
        digest = 0
        for place, log in sorted(self.world.broker.logs.items()):
            for record in log.records:
                value = None if record.key == producer.BARRIER else record.value  # it holds the time of the real clock
                digest = zlib.crc32(repr((place, record._replace(value=value))).encode(), digest)
        return digest

    # --- faults ----------------------------------------------------------------------------------------------------

    def _arm(self, process: Process) -> None:
        """Say when a process dies, or stands still."""
        if self.healed:
            return
        choices = self.choices
        if "network" in self.faults:
            process.slow = 0.12
        if "crash" in self.faults and choices.random() < 0.8:
            process.die_in = choices.choice((choices.randint(0, 30), choices.randint(0, 400)))
        if "freeze" in self.faults and choices.random() < 0.8:
            process.freeze_in, process.freeze_for = choices.randint(20, 300), choices.choice((0.5, 2.0, 3.5))

    async def _harm(self) -> None:
        choices, world = self.choices, self.world
        loop = asyncio.get_running_loop()
        for worker in self.workers:
            worker.before_start = self._harm_disk
        while loop.time() < FAULTY_FOR:
            await asyncio.sleep(choices.uniform(0.1, 0.8))
            kinds = sorted(self.faults)
            if not kinds or choices.random() < 0.3:
                continue
            kind, worker = choices.choice(kinds), choices.choice(self.workers)
            self._note(kind, worker)
            process = worker.process
            match kind:
                case "crash" if process is not None:
                    worker.down_for = choices.choice((0.05, 0.5, 3.0))
                    process.kill()
                case "freeze" if process is not None:
                    process.freeze(choices.choice((0.5, 2.0, 3.5)))
                case "rebalance":
                    worker.is_wanted = not worker.is_wanted or not any(
                        other.is_wanted for other in self.workers if other is not worker
                    )
                    world.broker.notify()
                case "old disk" if worker.backup is None or choices.random() < 0.4:
                    worker.backup = {place: files.copy() for place, files in worker.disk.items()}
                case "compaction":
                    for (topic, _), log in world.broker.logs.items():
                        if topic.startswith(SETTINGS.group):
                            log.compact(choices.choice((log.end, choices.randint(0, log.end))))
                case "redis":
                    world.redis.mode = choices.choice(("works", "loses", "hangs", "refuses", "works"))
                    if choices.random() < 0.5:
                        world.redis.restart()
                case "clock":
                    worker.skew = choices.choice((0, 1_000_000, -1_500_000))

    def _harm_disk(self, worker: Worker) -> None:
        if "lost disk" in self.faults and self.choices.random() < 0.4:
            self._note("lost disk", worker)
            worker.disk = {}
        elif "old disk" in self.faults and worker.backup is not None and self.choices.random() < 0.5:
            self._note("old disk", worker)
            worker.disk = {place: files.copy() for place, files in worker.backup.items()}

    def _wake_zombies(self) -> None:
        """Who was left out goes on just while another takes over."""
        for worker in self.workers:
            process = worker.process
            if process is not None and process.is_frozen and self.choices.random() < 0.6:
                asyncio.get_running_loop().call_later(self.choices.uniform(0, 0.04), process.thaw)

    def _note(self, kind: str, worker: Worker) -> None:
        self.injected[kind] += 1
        self.world.say(f"{kind} ({worker.name})")

    # --- the end ---------------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.healed = True
        self.world.redis.mode = "works"
        for worker in self.workers:
            worker.is_wanted, worker.skew = True, 0
            if worker.process is not None:
                worker.process.die_in = worker.process.freeze_in = None
                worker.process.slow = 0.0
                worker.process.thaw()
        self.world.say("no more faults")

    async def _settle(self, load: Load) -> str | None:
        """Wait until all is decided and stored, and nothing is held any longer. What is wrong otherwise."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SETTLE_WITHIN
        ticks, wanted = 0, self.choices.choice((0, 2, 5, 12))
        while loop.time() < until:
            await asyncio.sleep(0.5)
            if ticks < wanted:
                load.tick()
                ticks += 1
            elif self._is_settled():
                await asyncio.sleep(0.5)  # a firing that is being released is neither held nor sent
                if self._is_settled():
                    return None
        applied = {
            f"{worker.name}: {role}": partitions.applied() for worker in self.workers for role, partitions in worker.roles.items()
        }
        return f"not settled: {applied}, of {[(place, log.end) for place, log in self.world.broker.logs.items()]}"

    def _is_settled(self) -> bool:
        broker = self.world.broker
        for role, topic in ((ENGINE, EVENTS.name), (NOTIFIER, TRANSITIONS.name)):
            opened = [
                (number, partition)
                for worker in self.workers
                for number, partition in (worker.roles[role]._open.items() if role in worker.roles else ())
            ]
            if sorted(number for number, _ in opened) != list(range(broker.partitions[topic])):
                return False
            for number, partition in opened:
                if partition.fold.applied != broker.logs[topic, number].end - 1 or partition.dirty_since is not None:
                    return False
                if getattr(partition.fold, "held_episodes", 0) or partition._turn.locked():  # in the middle of a release
                    return False
        return all(worker.outbox is None or worker.outbox.is_empty for worker in self.workers)
