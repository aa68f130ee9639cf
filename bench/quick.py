"""Catch-up throughput of the engine beside stock Faust: one real broker, one topic, one run. See README.md.

python bench/quick.py [--events 1500000] [--stock-seconds 20] [--floor 30]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.process import BenchError, cpu_seconds, metric, worker  # noqa: E402 (the path is set above, so that the script runs as a file)
from bench.workload import RATE, Workload  # noqa: E402
from streams.partitioner import murmur2  # noqa: E402
from streams.settings import Settings  # noqa: E402
from streams.topics import ENGINE, EVENTS, NOTIFIER, TOPICS, changelog  # noqa: E402
from tests.command import TOCSIN, environment, tocsin  # noqa: E402
from tests.servers.kafka import KafkaServer  # noqa: E402
from tests.servers.process import free_port  # noqa: E402

PARTITIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a worker was: events, seconds of a monotonic clock, CPU seconds of its process."""

    events: int
    at: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a side did between two samples."""

    first: Sample
    last: Sample

    @property
    def rate(self) -> float:
        """Events per second."""
        return (self.last.events - self.first.events) / (self.last.at - self.first.at)

    @property
    def cpu(self) -> float:
        """Microseconds of CPU per event, all threads of the worker."""
        return (self.last.cpu - self.first.cpu) / (self.last.events - self.first.events) * 1e6


def run_to_end(settings: Mapping[str, str], *arguments: str) -> None:
    """Run a command of tocsin to its end."""
    done = tocsin(settings, *arguments)
    if done.returncode:
        raise BenchError(f"`tocsin {' '.join(arguments)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")


async def create_topics(settings: Settings) -> None:
    """The topics of tocsin with four partitions."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    wanted = {settings.topic_prefix + topic.name: topic for topic in TOPICS}
    wanted |= {topic.name: topic for topic in (changelog(settings.group, ENGINE), changelog(settings.group, NOTIFIER))}
    await admin.create_topics(
        [NewTopic(name, topic.partitions or PARTITIONS, 1, topic_configs=topic.config) for name, topic in wanted.items()]
    )
    await admin.close()


async def load(settings: Settings, workload: Workload) -> None:
    """Write the workload to the event topic: lz4, in batches of up to 256 KiB, keyed as Kafka's own clients do."""
    topic = settings.topic_prefix + EVENTS.name
    async with AIOKafkaProducer(
        **settings.kafka_client(), compression_type="lz4", max_batch_size=262_144, acks="all"
    ) as producer:
        batches = {partition: producer.create_batch() for partition in range(PARTITIONS)}
        partition_of: dict[bytes, int] = {}
        sent = []
        for key, value in workload.records():
            partition = partition_of.get(key)
            if partition is None:
                partition = partition_of[key] = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
            if batches[partition].append(key=key, value=value, timestamp=None) is None:
                batches[partition].close()
                sent.append(await producer.send_batch(batches[partition], topic, partition=partition))
                batches[partition] = producer.create_batch()
                batches[partition].append(key=key, value=value, timestamp=None)
        for partition, batch in batches.items():
            if batch.record_count():
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)


def counted(port: int) -> int:
    """Events that the engine has counted, by its metrics; 0 while it does not answer."""
    return int(metric(port, "tocsin_events_counted_total"))


def measure_engine(settings: Mapping[str, str], events: int, folder: Path) -> Result:
    """Let the engine catch up with the topic, from its first counted event to the last."""
    port = int(settings["TOCSIN_METRICS_PORT"])
    log = folder / "engine.log"
    command = [*TOCSIN, "run", "--only", "engine"]
    with worker(command, environment(settings), log) as process:
        first: Sample | None = None
        deadline = time.monotonic() + 180
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                state = "is not done after 180 s" if process.poll() is None else f"ended with {process.returncode}"
                raise BenchError(f"the engine {state}:\n{log.read_text(errors='replace')[-3000:]}")
            sample = Sample(counted(port), time.monotonic(), cpu_seconds(process.pid))
            if first is None and sample.events:
                first = sample
            if sample.events >= events and first is not None:
                break
            time.sleep(0.05)
        time.sleep(2)  # a repeated record would be counted after the last one
        total = counted(port)
    if total != events:
        raise BenchError(f"the engine counted {total} events, the topic holds {events}")
    if first.events > events // 2:
        raise BenchError(f"{first.events} of {events} events were counted before the first look: take more with --events")
    return Result(first, sample)


def measure_stock(settings: Settings, seconds: float, folder: Path) -> Result:
    """Let stock Faust work on the same topic for a while, from two seconds after its first event."""
    log = folder / "stock.log"
    variables = environment({}) | {
        "STOCK_ID": "stock-faust",
        "STOCK_BOOTSTRAP": settings.bootstrap_servers,
        "STOCK_TOPIC": settings.topic_prefix + EVENTS.name,
        "STOCK_PARTITIONS": str(PARTITIONS),
        "STOCK_DATA": str(folder / "stock"),
    }
    samples: list[Sample] = []
    command = [sys.executable, str(ROOT / "bench" / "stock_faust.py"), "worker", "-l", "info", "--without-web"]
    with worker(command, variables, log) as process:
        deadline = time.monotonic() + 60 + seconds
        while not samples or samples[-1].at - samples[0].at < 2 + seconds:
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"stock Faust made no progress:\n{log.read_text(errors='replace')[-3000:]}")
            found = re.findall(rb"^PROGRESS (\d+) (\d+)$", log.read_bytes(), re.MULTILINE)
            if found:
                samples.append(Sample(int(found[-1][1]), int(found[-1][0]) / 1e9, cpu_seconds(process.pid)))
            time.sleep(0.1)
    return Result(next(sample for sample in samples if sample.at >= samples[0].at + 2), samples[-1])


def main() -> int:
    """Run both sides, print the table; 1 where the ratio is below the floor, 2 where a side could not be measured."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=1_500_000, help="events on the topic")
    arguments.add_argument("--stock-seconds", type=float, default=20, help="how long stock Faust is measured")
    arguments.add_argument("--floor", type=float, default=30, help="smallest ratio of events per second that passes")
    given = arguments.parse_args()
    if (load_average := os.getloadavg()[0]) > 1:
        print(f"note: the machine is busy (load {load_average:.1f}), which slows the peer most: quote no figures of this run")
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as name:
        folder = Path(name)
        broker = KafkaServer(folder / "kafka", heap="1g", throughput=True)
        broker.start()
        try:
            return compare(broker.bootstrap, folder, given.events, given.stock_seconds, given.floor)
        except (BenchError, KafkaError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        finally:
            broker.stop()


def compare(bootstrap: str, folder: Path, events: int, seconds: float, floor: float) -> int:
    """Load the topic, measure both sides and print the table."""
    settings = {
        "TOCSIN_BOOTSTRAP_SERVERS": bootstrap,
        "TOCSIN_DATA_DIR": str(folder / "data"),
        "TOCSIN_GROUP": "bench",
        "TOCSIN_METRICS_PORT": str(free_port()),
    }
    parsed = Settings.from_environment(settings)
    asyncio.run(create_topics(parsed))
    run_to_end(settings, "deploy", str(ROOT / "bench" / "rules"))
    print(f"loading {events:,} events into {PARTITIONS} partitions", flush=True)
    asyncio.run(load(parsed, Workload(events, time.time_ns() // 1000 - events * 1_000_000 // RATE)))
    print("tocsin catches up", flush=True)
    engine = measure_engine(settings, events, folder)
    print(f"stock Faust on the same topic, {seconds:.0f} s", flush=True)
    stock = measure_stock(parsed, seconds, folder)
    ratio = engine.rate / stock.rate
    print()
    print(f"{'':24}{'events/s':>12}{'CPU µs/event':>16}{'events':>12}{'seconds':>10}")
    for label, result in (("tocsin engine", engine), ("stock Faust, tumbling", stock)):
        count, span = result.last.events - result.first.events, result.last.at - result.first.at
        print(f"{label:24}{result.rate:12,.0f}{result.cpu:16.1f}{count:12,}{span:10.2f}")
    print(f"{'ratio':24}{ratio:11.1f}x{stock.cpu / engine.cpu:15.1f}x")
    print(f"all {events:,} events counted once; floor {floor:.0f}x: {'passed' if ratio >= floor else 'FAILED'}")
    return 0 if ratio >= floor else 1


if __name__ == "__main__":
    sys.exit(main())
