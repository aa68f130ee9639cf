"""Rebuilding local state from a changelog, beside stock Faust: one real broker, records of one kind, one run. See README.md.

python bench/recovery.py [--records 1000000] [--stock-records 150000] [--floor 200000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.process import BenchError, worker  # noqa: E402 (the path is set above, so that the script runs as a file)
from streams.operations.metrics import Metrics  # noqa: E402
from streams.runtime import logs  # noqa: E402
from streams.runtime.app import RoleApp, build_app  # noqa: E402
from streams.runtime.producer import Outbox  # noqa: E402
from streams.runtime.recovery import recover  # noqa: E402
from streams.settings import Settings  # noqa: E402
from streams.topics import ENGINE, changelog  # noqa: E402
from tests.command import environment  # noqa: E402
from tests.runtime.counting import restore  # noqa: E402
from tests.servers.kafka import KafkaServer  # noqa: E402

PARTITIONS: Final = 8
BATCH: Final = 1_000
"""Records of one checkpoint of one partition."""
DISTINCT: Final = 4
"""Every key is written so often: the changelog was not compacted yet."""


def items(number: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the size of cells: about 60 and 90 bytes."""
    dice = random.Random(seed)  # noqa: S311 - no secrets
    values = [dice.randbytes(90) for _ in range(1_000)]
    keys = max(1, number // DISTINCT)
    for at in range(number):
        yield b"c\0rule-%04d\0tenant-%02d|mcp-service-%08d\0%012d" % (at % 7, at % 20, at % keys, at % keys), values[at % 1_000]


async def load(settings: Settings, topic: str, number: int, config: dict[str, str]) -> None:
    """Create a topic of PARTITIONS partitions and write `number` records to it in batches, as checkpoints do."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=config)])
    await admin.close()
    async with AIOKafkaProducer(**settings.kafka_client(), max_batch_size=1 << 20, acks="all") as producer:
        sent = []
        source = items(number)
        for at in range(0, number, BATCH):
            batch = producer.create_batch()
            for _ in range(min(BATCH, number - at)):
                key, value = next(source)
                batch.append(key=key, value=value, timestamp=None)
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=at // BATCH % PARTITIONS))
        await asyncio.gather(*sent)


async def measure_ours(settings: Settings, topic: str, number: int) -> tuple[float, float, float]:
    """Seconds to rebuild all partitions from nothing, CPU seconds of that, and seconds to start again on what is there then."""
    app = app_of(settings)
    began, cpu = time.monotonic(), time.process_time()
    ends = await recover(settings, ENGINE, topic, list(range(PARTITIONS)), app.store, lambda: None)
    cold, cpu = time.monotonic() - began, time.process_time() - cpu
    if sum(ends.values()) != number:
        raise BenchError(f"the changelog ends at {sum(ends.values())}, and {number} records were written")
    held = sum(1 for partition in range(PARTITIONS) for _ in app.store.items_of(partition))
    if held != len({key for key, _ in items(number)}):
        raise BenchError(f"{held} keys were rebuilt of {len({key for key, _ in items(number)})}")
    began = time.monotonic()
    await recover(settings, ENGINE, topic, list(range(PARTITIONS)), app.store, lambda: None)
    return cold, cpu, time.monotonic() - began


def app_of(settings: Settings) -> RoleApp:
    """The engine's app, whose local tables are filled."""
    metrics = Metrics()
    return build_app(settings, ENGINE, restore, partitions=PARTITIONS, outbox=Outbox(settings, metrics), metrics=metrics)


def measure_stock(settings: Settings, number: int, folder: Path) -> float:
    """Records per second of stock Faust, from its first record to its last."""
    log = folder / "stock.log"
    variables = environment({}) | {
        "STOCK_ID": "stock",
        "STOCK_BOOTSTRAP": settings.bootstrap_servers,
        "STOCK_TOPIC": "stock-source",
        "STOCK_PARTITIONS": str(PARTITIONS),
        "STOCK_DATA": str(folder / "stock"),
    }
    command = [sys.executable, str(ROOT / "bench" / "stock_recovery.py"), "worker", "-l", "warn", "--without-web"]
    with worker(command, variables, log) as process:
        deadline = time.monotonic() + 60 + number / 1_000
        while True:
            time.sleep(0.2)
            found = [(int(at), int(done)) for at, done in re.findall(rb"^PROGRESS (\d+) (\d+)$", log.read_bytes(), re.MULTILINE)]
            if found and found[-1][1] >= number:
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"stock Faust did not recover {number} records:\n{log.read_text(errors='replace')[-3000:]}")
    first = next((at, done) for at, done in found if done)
    last = next((at, done) for at, done in found if done >= number)
    if last[0] == first[0]:
        raise BenchError("stock Faust was too fast to be measured: take more with --stock-records")
    return (last[1] - first[1]) / (last[0] - first[0]) * 1e9


def main() -> int:
    """Run both sides, print the table; 1 where ours is below the floor, 2 where a side could not be measured."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--records", type=int, default=1_000_000, help="records of our changelog")
    arguments.add_argument("--stock-records", type=int, default=150_000, help="records of stock Faust's changelog")
    arguments.add_argument("--floor", type=float, default=200_000, help="records per second that pass")
    given = arguments.parse_args()
    if (load_average := os.getloadavg()[0]) > 1:
        print(f"note: the machine is busy (load {load_average:.1f}), which slows both sides: quote no figures of this run")
    logs.configure("text")
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as name:
        folder = Path(name)
        broker = KafkaServer(folder / "kafka", heap="1g", throughput=True)
        broker.start()
        try:
            return compare(broker.bootstrap, folder, given.records, given.stock_records, given.floor)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        finally:
            broker.stop()


def compare(bootstrap: str, folder: Path, records: int, stock_records: int, floor: float) -> int:
    """Load both changelogs, measure both sides and print the table."""
    settings = Settings(bootstrap_servers=bootstrap, data_dir=str(folder / "data"), group="bench")
    ours = changelog(settings.group, ENGINE)
    print(f"loading {records:,} and {stock_records:,} records into {PARTITIONS} partitions each", flush=True)
    asyncio.run(load(settings, ours.name, records, dict(ours.config)))
    asyncio.run(load(settings, "stock-state-changelog", stock_records, {"cleanup.policy": "compact"}))
    asyncio.run(load(settings, "stock-source", 0, {}))
    cold, cpu, warm = asyncio.run(measure_ours(settings, ours.name, records))
    print("stock Faust", flush=True)
    stock = measure_stock(settings, stock_records, folder)
    rate = records / cold
    print()
    print(f"{'':28}{'records/s':>12}{'records':>12}{'seconds':>10}{'CPU µs/record':>16}")
    print(f"{'tocsin, from nothing':28}{rate:12,.0f}{records:12,}{cold:10.2f}{cpu / records * 1e6:16.2f}")
    print(f"{'tocsin, disk state is there':28}{'':12}{0:12,}{warm:10.2f}")
    print(f"{'stock Faust, from nothing':28}{stock:12,.0f}{stock_records:12,}{stock_records / stock:10.2f}")
    print(f"{'ratio':28}{rate / stock:11.1f}x")
    print(f"all keys rebuilt; floor {floor:,.0f} records/s: {'passed' if rate >= floor else 'FAILED'}")
    return 0 if rate >= floor else 1


if __name__ == "__main__":
    sys.exit(main())
