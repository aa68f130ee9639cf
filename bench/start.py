"""How long it takes until the first decision: on a fresh group and on a warm one, and until `tocsin --help` has helped.

python -m bench.start [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from bench.process import BenchError, worker
from bench.quick import create_topics, run_to_end
from bench.report import Figure, Goal, Part, finish
from streams.partitioner import event_key
from streams.settings import Settings
from streams.topics import EVENTS, TRANSITIONS
from tests.command import ROOT, TOCSIN, environment
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port

FAILED: Final = 30
"""Failed operations of one service, which fire the rule of the benchmark at the twentieth."""
WITHIN: Final = 60.0


def failed_operations(service: str) -> list[tuple[bytes, bytes]]:
    """Keys and values of FAILED operations of `service`, now."""
    now = time.time_ns() // 1000
    common = {"kind": "operation", "tenant": "bench", "service": service, "method": "tools/call", "outcome": "tool_error"}
    values = [json.dumps({"id": f"{service}-{number}", "ts": now, **common}).encode() for number in range(FAILED)]
    return [(event_key("bench", service), value) for value in values]


async def publish(settings: Settings, records: list[tuple[bytes, bytes]]) -> None:
    """Send `records` to the event topic."""
    async with AIOKafkaProducer(**settings.kafka_client(), acks="all") as producer:
        for key, value in records:
            await producer.send_and_wait(settings.topic_prefix + EVENTS.name, value, key=key, partition=0)


async def decided(consumer: AIOKafkaConsumer, service: str) -> float:
    """When the transition of `service` came, in seconds since the epoch. Raises BenchError where it is another's."""
    record = await asyncio.wait_for(consumer.getone(), WITHIN)
    at = time.time()
    said = json.loads(record.value)
    if (said["labels"]["service"], said["details"]["kind"]) != (service, "fired"):
        raise BenchError(f"expected that {service} fires, and found {record.value!r}")
    return at


async def first_decision(settings: Mapping[str, str], parsed: Settings, service: str, log: Path) -> float:
    """Seconds from the start of an engine to the transition of events that wait for it. Raises TimeoutError."""
    await publish(parsed, failed_operations(service))
    topic = parsed.topic_prefix + TRANSITIONS.name
    async with AIOKafkaConsumer(topic, **parsed.kafka_client(), auto_offset_reset="latest") as consumer:
        await consumer.seek_to_end()
        for place in consumer.assignment():
            await consumer.position(place)
        began = time.time()
        with worker([*TOCSIN, "run", "--only", "engine"], environment(settings), log):
            return await decided(consumer, service) - began


def help_seconds() -> float:
    """Seconds that `tocsin --help` takes."""
    began = time.monotonic()
    subprocess.run([*TOCSIN, "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def measure(bootstrap: str, folder: Path, runs: int) -> Part:
    """Each start several times, every fresh one in a group of its own."""
    fresh: list[float] = []
    warm: list[float] = []
    for number in range(runs):
        settings = {
            "TOCSIN_BOOTSTRAP_SERVERS": bootstrap,
            "TOCSIN_DATA_DIR": str(folder / f"data-{number}"),
            "TOCSIN_GROUP": f"start-{number}",
            "TOCSIN_TOPIC_PREFIX": f"start-{number}.",
            "TOCSIN_METRICS_PORT": str(free_port()),
        }
        parsed = Settings.from_environment(settings)
        asyncio.run(create_topics(parsed))
        run_to_end(settings, "deploy", str(ROOT / "bench" / "rules"))
        for found, service in ((fresh, "fresh"), (warm, "warm")):
            log = folder / f"{service}-{number}.log"
            try:
                found.append(asyncio.run(first_decision(settings, parsed, service, log)))
            except TimeoutError as error:
                raise BenchError(f"no decision within {WITHIN:.0f} s:\n{log.read_text(errors='replace')[-2000:]}") from error
            print(f"run {number + 1} of {runs}, {service} group: first decision after {found[-1]:.2f} s", flush=True)
    helped = [help_seconds() * 1000 for _ in range(2 * runs)]
    return Part(
        "start",
        "Start",
        (
            Figure.of("first decision, fresh group", fresh, "s", Goal("at most", 5)),
            Figure.of("first decision, warm group", warm, "s", Goal("at most", 3)),
            Figure.of("tocsin --help", helped, "ms", Goal("at most", 150)),
        ),
        notes=("From the start of the process to the transition at a consumer; the events that decide wait on the topic.",),
    )


def main() -> int:
    """Measure and tell; 2 where a start could not be measured."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=5, help="starts of each kind")
    arguments.add_argument("--json", help="a file for the figures")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-") as name:
        broker = KafkaServer(Path(name) / "kafka", heap="1g", throughput=True)
        broker.start()
        try:
            return finish(measure(broker.bootstrap, Path(name), given.runs), given.json)
        except (BenchError, KafkaError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        finally:
            broker.stop()


if __name__ == "__main__":
    sys.exit(main())
