"""Redis stopped, frozen, restarted empty, failed over to a stale replica, evicting, full; its answers lost on the way."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from streams.topics import ALERTS, TRANSITIONS
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import COOLDOWNS, Servers, Stage, Worker, open_stage, until
from tests.faults.verdict import DECISION, settled, verdict
from tests.servers.process import HOST
from tests.servers.proxy import Proxy
from tests.servers.redis import RedisServer

FAULT = "Redis"
ADDED: Final = 0.5
"""Seconds by which faults may delay a decision, at the 99th percentile; judged in the long form, which plays alone."""
LONG_COOLDOWN: Final = 60_000_000
"""Cooldowns that outlast a run (µs): within them a second firing is one too many."""
_DISPATCHES: Final = ("first_notification", "cooldown_over")


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Every fault once, in the long form three times and in an order from the seed."""
    hold, rest = (3.0, 1.5) if long else (0.6, 0.3)
    injected: Counter[str] = Counter()
    with open_stage(servers, folder, seed, own_redis=True) as stage, Proxy(stage.redis.port) as proxy:
        stage.prepare(COOLDOWNS)
        worker = stage.worker("a", redis_url=f"redis://{HOST}:{proxy.port}/0")
        worker.start()
        await worker.ready("notifier")
        play = Play(stage, proxy, worker, hold)
        names = [name for _ in range(3 if long else 1) for name in play.faults()]
        if long:
            random.Random(seed).shuffle(names)
        try:
            async with stage.load() as load:
                steady = asyncio.create_task(load.run(600, 500))
                await asyncio.sleep(6 if long else 4)
                for name in names:
                    play.starts.append(time.time())
                    await play.faults()[name]()
                    injected[name] += 1
                    await play.restored()
                    await asyncio.sleep(rest)
                await load.end(steady)
                await settled(stage)
            await worker.stop()
        finally:
            play.end()
        found = await verdict(stage)
        seen = await Seen.of(stage)
    differences = (
        *found.differences,
        *seen.duplicates(sorted([*play.starts, *play.missed()])),
        *(seen.delayed(play.starts[0], ADDED) if long else ()),
    )
    told = ", ".join(f"{number}x {name}" for name, number in injected.items())
    return Row(FAULT, told, f"{found.compared()}; {seen.latencies(play.starts[0])}", differences)


@dataclass
class Play:
    """Injects the faults, and remembers when."""

    stage: Stage
    proxy: Proxy
    worker: Worker
    hold: float
    starts: list[float] = field(default_factory=list)
    _current: RedisServer | None = None
    _replicas: list[RedisServer] = field(default_factory=list)

    @property
    def redis(self) -> RedisServer:
        """The server that the proxy leads to."""
        return self._current or self.stage.redis

    def faults(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """By name."""
        return {
            "stopped": self.stopped,
            "frozen": self.frozen,
            "restarted empty": self.restarted,
            "failed over to a stale replica": self.failed_over,
            "evicting": self.evicting,
            "full": self.full,
            "answers lost": self.answers_lost,
        }

    def end(self) -> None:
        """End the servers that were started here."""
        for replica in self._replicas:
            if replica.is_running:
                replica.resume()
            replica.kill()

    async def stopped(self) -> None:
        """It is gone for a while, and comes back with nothing."""
        self.redis.kill()
        await self._felt()
        await asyncio.to_thread(self.redis.start)

    async def frozen(self) -> None:
        """Connections stay open, and nothing is answered."""
        self.redis.pause()
        await self._felt()
        self.redis.resume()

    async def restarted(self) -> None:
        """It is away for no longer than a start takes."""
        self.redis.kill()
        await asyncio.to_thread(self.redis.start)

    async def failed_over(self) -> None:
        """A replica that missed the last claims becomes the primary."""
        replica = RedisServer(self.stage.folder / f"replica-{len(self._replicas)}", primary=self.redis.port)
        self._replicas.append(replica)
        await asyncio.to_thread(replica.start)
        await until(lambda: "master_link_status:up" in replica.ask("INFO", "replication"), "the replica to be in step")
        replica.pause()
        await asyncio.sleep(self.hold)
        self.redis.kill()
        replica.resume()
        replica.ask("REPLICAOF", "NO", "ONE")
        replica.primary = None  # nor is it one again when it is restarted
        self._current = replica
        self.proxy.switch(replica.port)

    async def evicting(self) -> None:
        """It has no room for all its keys, and forgets some."""
        redis = self.redis
        redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        used = next(line for line in redis.ask("INFO", "memory").splitlines() if line.startswith("used_memory:"))
        redis.ask("CONFIG", "SET", "maxmemory", str(int(used.partition(":")[2]) + 20_000))
        for number in range(200):
            redis.ask("SET", f"other:{number}", "x" * 500)
        await asyncio.sleep(self.hold)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    async def full(self) -> None:
        """It refuses every write."""
        self.redis.ask("CONFIG", "SET", "maxmemory", "1")
        await self._felt()
        self.redis.ask("CONFIG", "SET", "maxmemory", "0")

    async def answers_lost(self) -> None:
        """Claims are done, and their answers do not arrive."""
        before = self.proxy.dropped
        self.proxy.drop_replies(3)
        await until(lambda: self.proxy.dropped >= before + 3, "three answers to be lost")

    async def restored(self) -> None:
        """Wait until the worker uses Redis again, if it did not."""
        await until(lambda: self._told("cooldowns restored") == self._told("cooldowns degraded"), "Redis to be used again")

    async def _felt(self) -> None:
        """Wait until the worker has noticed, and some more."""
        await until(lambda: self._told("cooldowns degraded") > self._told("cooldowns restored"), "the worker to miss Redis")
        await asyncio.sleep(self.hold)

    def missed(self) -> list[float]:
        """When the worker missed Redis: on a machine that is busy enough also by itself, which is a fault like another."""
        lines = self.worker.log.read_text(errors="replace").splitlines()
        return [datetime.fromisoformat(line[:23]).timestamp() for line in lines if "cooldowns degraded" in line]

    def _told(self, text: str) -> int:
        return self.worker.log.read_text(errors="replace").count(text)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A firing that went out, and when (seconds): `group` is its rule and labels, `decided` when its transition was there."""

    group: str
    reason: str
    cooldown: int
    decided: float
    sent: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What went to the topics, with the times of the broker."""

    dispatches: Sequence[Dispatch]

    @classmethod
    async def of(cls, stage: Stage) -> Seen:
        """Read from the topics of `stage`."""
        prefix = stage.settings.topic_prefix
        decided: dict[str, float] = {}
        for record in await read_topic(stage.settings, prefix + TRANSITIONS.name):
            if not any(name == DECISION for name, _ in record.headers):
                decided.setdefault(json.loads(record.value or b"")["id"], record.timestamp / 1000)
        sent: dict[str, Dispatch] = {}
        for record in await read_topic(stage.settings, prefix + ALERTS.name):
            alert: dict[str, Any] = json.loads(record.value or b"")
            group = f"{alert['rule']} {json.dumps(alert['labels'], sort_keys=True)}"
            at = record.timestamp / 1000
            sent.setdefault(
                alert["id"], Dispatch(group, alert["reason"], alert["details"]["cooldown"], decided.get(alert["id"], at), at)
            )
        return cls(sorted(sent.values(), key=lambda each: each.sent))

    def duplicates(self, starts: Sequence[float]) -> list[str]:
        """Groups that were told of more than once too often after one fault, or at all before the first."""
        times: dict[str, list[float]] = defaultdict(list)
        for each in self.dispatches:
            if each.reason in _DISPATCHES and each.cooldown >= LONG_COOLDOWN:
                times[each.group].append(each.sent)
        found = []
        for group, sent in times.items():
            of_fault = Counter(sum(start <= at for start in starts) for at in sent)
            of_fault[sum(start <= sent[0] for start in starts)] -= 1  # the first is none too many
            if of_fault[0] > 0:
                found.append(f"duplicate without a fault: {group}, {of_fault[0]}")
            found += [
                f"duplicates: {group} has {number} after fault {at}" for at, number in of_fault.items() if at and number > 1
            ]
        return found

    def delayed(self, since: float, most: float) -> list[str]:
        """Whether decisions took too long from the first fault on (`since`), compared with those before it."""
        calm, faulty = self._waits(since)
        if len(calm) < 20 or len(faulty) < 50:
            return [f"nothing to compare: {len(calm)} decisions before the faults, {len(faulty)} after"]
        added = percentile(faulty) - percentile(calm)
        return [f"decisions are delayed: p99 {added * 1000:.0f} ms more than without a fault"] if added >= most else []

    def latencies(self, since: float) -> str:
        """The times in words."""
        calm, faulty = self._waits(since)
        if not calm or not faulty:
            return "no decisions"
        return (
            f"p99 of {len(faulty)} decisions under faults {percentile(faulty) * 1000:.0f} ms, "
            f"of {len(calm)} before them {percentile(calm) * 1000:.0f} ms"
        )

    def _waits(self, since: float) -> tuple[list[float], list[float]]:
        """From transition to alert, before the first fault and from then on. What was held is left out."""
        calm: list[float] = []
        faulty: list[float] = []
        for each in self.dispatches:
            if each.reason != "cooldown_over":
                (faulty if each.decided >= since else calm).append(each.sent - each.decided)
        return calm, faulty


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    """The value that `share` of `values` do not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]
