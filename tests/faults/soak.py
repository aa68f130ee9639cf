"""Two workers under load and faults for a long time: do memory, files, tasks or the size of the state grow?

`make soak` (MINUTES=20). One worker is never killed, so that its growth can be measured; the other is killed, frozen and
brought back, and broker and Redis pause now and then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from rich.console import Console

from bench.workload import Workload
from streams.settings import Settings
from streams.topics import EVENTS
from tests.faults.stage import RULES, Servers, Stage, Worker, open_stage
from tests.servers.kafka import KafkaServer
from tests.servers.process import HOST, free_port

RATE: Final = 20_000
PARTITIONS: Final = 8
SLICE: Final = 0.05
WARM_UP: Final = 0.35
"""Share of the time before growth counts."""
MAX_SLOPE: Final = 0.5
"""MiB of resident memory a minute."""
MAX_GROWTH: Final = 0.5
"""Files, threads or tasks a minute: a leak at each of the rebalances would be one, or more."""
MIB: Final = 1 << 20
_EVENTS: Final = 200_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the steady worker: minutes, MiB, and numbers."""

    at: float
    resident: float
    files: int
    threads: int
    tasks: int
    groups: int
    state: float
    lag: int


def slope(samples: Sequence[Sample], name: str) -> float:
    """Growth a minute: the median of the slopes between any two samples (Theil and Sen), which no passing peak moves."""
    x = np.array([sample.at for sample in samples])
    y = np.array([getattr(sample, name) for sample in samples], dtype=float)
    first, second = np.triu_indices(len(samples), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


class Pump:
    """Sends the workload of the benchmarks, event times renewed, in batches."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self.sent, self.refused = settings, 0, 0
        records = list(Workload(_EVENTS, 0).records())
        self._parts = [re.split(rb'(?<="ts":)-?\d+', value, maxsplit=1) for _, value in records]
        self._places = [_place(key) for key, _ in records]

    async def run(self, seconds: float) -> None:
        """RATE events a second; what the broker refuses is left out, and counted."""
        producer = AIOKafkaProducer(**self._settings.kafka_client(), enable_idempotence=True, acks="all", max_batch_size=1 << 20)
        await producer.start()
        began, at = time.monotonic(), 0
        try:
            while (passed := time.monotonic() - began) < seconds:
                until = int(passed * RATE)
                if until - at > RATE:
                    at = until - RATE
                await self._send(producer, at, until)
                at = until
                await asyncio.sleep(SLICE)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, start: int, end: int) -> None:
        batches: dict[int, Any] = {}
        now = time.time_ns() // 1000
        for number in range(start, end):
            at = number % _EVENTS
            place, (head, tail) = self._places[at], self._parts[at]
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = producer.create_batch()
            batch.append(key=None, value=b"%s%d%s" % (head, now, tail), timestamp=None)
        for place, batch in batches.items():
            count = batch.record_count()
            batch.close()
            try:
                await producer.send_batch(batch, self._settings.topic_prefix + EVENTS.name, partition=place)
                self.sent += count
            except KafkaError:
                self.refused += count


def _place(key: bytes) -> int:
    return int(murmur2(key) & 0x7FFFFFFF) % PARTITIONS


def look(worker: Worker, port: int, began: float) -> Sample:
    """What the process and its metrics say now."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    proc = Path(f"/proc/{worker.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line)
    return Sample(
        at=(time.monotonic() - began) / 60,
        resident=int(status["VmRSS"].split()[0]) / 1024,
        files=len(list((proc / "fd").iterdir())),
        threads=int(status["Threads"]),
        tasks=_metric(text, "tocsin_asyncio_tasks"),
        groups=_metric(text, "tocsin_groups"),
        state=sum(file.stat().st_size for file in worker.data.rglob("*.sst") if file.exists()) / MIB,
        lag=_metric(text, "tocsin_consumer_lag_records"),
    )


def _metric(text: str, name: str) -> int:
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)))


async def disturb(stage: Stage, other: Worker, seconds: float, done: dict[str, int]) -> None:
    """Every 20 to 40 seconds something happens, but not to the steady worker.

    First what takes most memory: all partitions on the steady worker, with a backlog.
    """
    dice = random.Random(stage.seed)
    until = time.monotonic() + seconds
    for _ in range(3):
        await asyncio.sleep(min(20, seconds / 30))
        other.kill()
        other.lose_disk()
        stage.kafka.pause()
        await asyncio.sleep(5)
        stage.kafka.resume()
        await asyncio.sleep(min(20, seconds / 30))
        other.start()
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(dice.uniform(20, 40), left))
        what = dice.choice(("kill", "kill and lose the disk", "freeze", "pause the broker", "restart Redis"))
        done[what] = done.get(what, 0) + 1
        match what:
            case "freeze":
                other.pause()
                await asyncio.sleep(10)
                other.resume()
                await asyncio.sleep(3)
            case "pause the broker":
                stage.kafka.pause()
                await asyncio.sleep(3)
                stage.kafka.resume()
            case "restart Redis":
                stage.redis.kill()
                await asyncio.sleep(2)
                await asyncio.to_thread(stage.redis.start)
            case _:
                other.kill()
                if what != "kill":
                    other.lose_disk()
                await asyncio.sleep(dice.uniform(0, 8))
        if not other.is_running:
            other.start()


async def soak(seed: int, minutes: float, folder: Path, console: Console) -> list[str]:
    """Run, tell once a minute, and return what grew."""
    seconds, port = minutes * 60, free_port()
    servers = Servers(folder, KafkaServer(folder / "kafka", heap="1g"))
    servers.kafka.start()
    samples: list[Sample] = []
    done: dict[str, int] = {}
    with open_stage(servers, folder / "stage", seed, partitions=PARTITIONS) as stage:
        stage.prepare(RULES)
        steady, other = stage.worker("steady", metrics_port=str(port), instance="steady"), stage.worker("other", instance="other")
        steady.start()
        await steady.ready()
        other.start()
        pump, began = Pump(stage.settings), time.monotonic()
        tasks = [asyncio.create_task(pump.run(seconds)), asyncio.create_task(disturb(stage, other, seconds - 30, done))]
        told = 0
        while not tasks[0].done():
            await asyncio.sleep(5)
            if not steady.is_running:
                return [f"the steady worker ended: see {steady.log}"]
            with contextlib.suppress(OSError):
                samples.append(await asyncio.to_thread(look, steady, port, began))
            if samples and int(samples[-1].at) > told:
                told = int(samples[-1].at)
                last = samples[-1]
                console.print(
                    f"{told:3} min: {last.resident:.1f} MiB, {last.files} files, {last.threads} threads, {last.tasks} tasks, "
                    f"{last.groups} groups, state {last.state:.1f} MiB, lag {last.lag}, {pump.sent:,} events"
                )
        await asyncio.gather(*tasks)
        problems = judge(samples, console)
        console.print(f"{pump.sent:,} events, {pump.refused} refused; {done}; seed {seed}")
        await asyncio.gather(steady.stop(), other.stop())
    servers.kafka.kill()
    servers.redis.kill()
    return problems


def judge(samples: Sequence[Sample], console: Console) -> list[str]:
    """What grew after the warm-up."""
    warm = [sample for sample in samples if sample.at > samples[-1].at * WARM_UP]
    resident = slope(warm, "resident")
    half = len(warm) // 2
    console.print(f"resident memory: {resident:+.3f} MiB a minute over the last {warm[-1].at - warm[0].at:.1f} min")
    problems = [] if resident < MAX_SLOPE else [f"resident memory grows by {resident:.2f} MiB a minute"]
    for name in ("files", "threads", "tasks"):
        growth = slope(warm, name)
        console.print(f"{name}: {growth:+.3f} a minute, at most {max(getattr(sample, name) for sample in warm)}")
        if growth > MAX_GROWTH:
            problems.append(f"{name} grow by {growth:.2f} a minute")
    per_group = [
        float(np.mean([sample.state * MIB / max(sample.groups, 1) for sample in part])) for part in (warm[:half], warm[half:])
    ]
    console.print(f"RocksDB bytes per live group: {per_group[0]:,.0f} before, {per_group[1]:,.0f} after the middle")
    if per_group[1] > per_group[0] * 1.5:
        problems.append(f"RocksDB bytes per live group grow from {per_group[0]:,.0f} to {per_group[1]:,.0f}")
    return problems


def main() -> int:
    """Exit status 0 if nothing grows."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that brokers are away is meant here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives the run
    console = Console(width=160)
    folder = Path(tempfile.mkdtemp(prefix="tocsin-soak-"))
    problems = asyncio.run(soak(options.seed, options.minutes, folder, console))
    for problem in problems:
        console.print(problem)
    if problems:
        console.print(f"logs in {folder}")
        return 1
    console.print("nothing grows")
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
