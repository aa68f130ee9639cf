"""The state compared with the log, rebuilt from it, copied and brought back, on a real broker beside real workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from streams.runtime.changelog_table import read_table
from streams.runtime.producer import Changelog
from streams.settings import Settings
from streams.state_copy import CopyReader, StateCopyError
from streams.topics import ENGINE, EVENTS, changelog_name
from tests.commands.running import tocsin
from tests.faults.stage import PARTITIONS, RULES, Servers, Stage, open_stage
from tests.faults.verdict import decided_ids, settled, verdict
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.integration

CALLS = Path(__file__).parent / "calls"


@pytest.fixture
async def stage(kafka: KafkaServer, redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Stage]:
    with open_stage(Servers(tmp_path, kafka, redis_server), tmp_path / "stage", 1) as found:
        found.prepare(RULES, CALLS)
        yield found


async def said(stage: Stage, *arguments: str, status: int = 0) -> str:
    """What a command says, in this process: starting one takes longer than most of them."""
    done = await asyncio.to_thread(tocsin, stage.settings, *arguments)
    assert done.exit_code == status, done.output
    return done.output


async def refused(stage: Stage, *arguments: str) -> str:
    """What a command says that fails."""
    return await said(stage, *arguments, status=1)


async def damage(stage: Stage, partition: int) -> None:
    """Change a slice, forget one, and invent a group in the changelog, so that a worker could still start."""
    table = (await read_table(stage.settings, ENGINE, partition)).items
    cell, gone = [key for key in sorted(table) if key[:1] == b"c"][:2]
    count, *rest = msgspec.msgpack.decode(table[cell])
    group = next(key for key in sorted(table) if key[:1] == b"g")
    items = [(cell, msgspec.msgpack.encode([count + 1, *rest])), (gone, None), (group[:9] + b'["x","y"]', table[group])]
    async with AIOKafkaProducer(**stage.settings.kafka_client()) as producer:
        for key, value in items:
            topic = changelog_name(stage.settings.group, ENGINE)
            await producer.send_and_wait(topic, value, key=key, partition=partition)


async def cut(stage: Stage, topic: str, offsets: dict[int, int]) -> None:
    """Remove what lies before the offsets, as retention does."""
    admin = AIOKafkaAdminClient(**stage.settings.kafka_client())
    await admin.start()
    name = stage.settings.topic_prefix + topic
    await admin.delete_records({TopicPartition(name, at): RecordsToDelete(before_offset=end) for at, end in offsets.items()})
    await admin.close()


def claimed_late(stage: Stage, claim: Any) -> Any:
    """A claim before which a worker of the group has written something."""

    async def claimed(self: Changelog, partitions: Iterable[int]) -> dict[int, int]:
        places = list(partitions)
        async with AIOKafkaProducer(**stage.settings.kafka_client()) as producer:
            await producer.send_and_wait(self.topic, b"v", key=b"k", partition=places[0])
        offsets: dict[int, int] = await claim(self, places)
        return offsets

    return claimed


async def refuses_what_does_not_fit(stage: Stage, old: Settings, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of another time or log, and groups in which something writes; the stage is left with a group that holds the copy."""
    newer = file.with_name("newer.tocsin")
    await said(stage, "state", "export", str(newer))
    stage.settings = replace(old, group=old.group + "-third")
    await said(stage, "topics")
    with monkeypatch.context() as patch:
        patch.setattr(Changelog, "claim", claimed_late(stage, Changelog.claim))
        assert "holds state already" in await refused(stage, "state", "import", str(file)), "a worker wrote meanwhile"
    stage.settings = replace(old, group=old.group + "-fourth")
    await said(stage, "topics")
    await said(stage, "state", "import", str(file))
    assert "Take an older copy" in await refused(stage, "state", "verify", "--from", str(newer))
    assert "Take an older copy" in await refused(stage, "state", "rebuild", "0", "--yes", "--from", str(newer))
    with monkeypatch.context() as patch:
        patch.setattr("streams.runtime.repair.fingerprint_of", lambda _: "other")
        assert "another record" in await refused(stage, "state", "verify", "--from", str(file))
        assert "another record" in await refused(stage, "state", "rebuild", "0", "--yes", "--from", str(file))


async def test_a_copy_that_was_brought_back_goes_on_exactly(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "copy.tocsin"
    worker = stage.worker("a")
    worker.start()
    await worker.ready()
    async with stage.load() as load:
        running = asyncio.create_task(load.run(8, 400))
        await asyncio.sleep(4)
        assert "items of the engine" in await said(stage, "state", "export", str(file))
        await running
        await load.flush()
        worker.kill()
        elsewhere = await decided_ids(stage.settings)

        old, stage.settings = stage.settings, replace(stage.settings, group=stage.settings.group + "-restored")
        await said(stage, "topics")
        assert "next: tocsin run" in await said(stage, "state", "import", str(file))
        assert "next: tocsin run" in await said(stage, "state", "import", str(file)), "one that was stopped half-way goes on"
        other = stage.worker("b")
        other.start()
        await other.ready()
        await load.run(3, 400)
        await load.flush()
        await settled(stage)
        assert (await said(stage, "state", "verify")).count(": same, ") == PARTITIONS
    assert await other.stop() == 0
    assert (await verdict(stage, elsewhere=elsewhere)).differences == ()
    assert not other.said("are missing in the log")
    assert "holds state already" in await refused(stage, "state", "import", str(file))
    await refuses_what_does_not_fit(stage, old, file, monkeypatch)
    covered = {part.partition: part.covered.applied for part in CopyReader(file).parts() if part.role == ENGINE}
    await cut(stage, EVENTS.name, {0: covered[0] + 2})
    assert "the records between are gone" in await refused(stage, "state", "import", str(file))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(StateCopyError):
        CopyReader(file)
    assert "damaged" in await refused(stage, "state", "import", str(file))
    assert "cannot be read or written" in await refused(stage, "state", "export", str(tmp_path / "nowhere" / "copy.tocsin"))


async def test_differences_are_named_and_a_rebuild_mends_them_beside_a_running_worker(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "copy.tocsin"
    worker = stage.worker("a")
    worker.start()
    await worker.ready()
    async with stage.load() as load:
        running = asyncio.create_task(load.run(6, 400))
        await asyncio.sleep(3)
        text = await said(stage, "state", "verify")
        assert text.count(": same, ") == PARTITIONS
        await said(stage, "state", "export", str(file))
        await running
        await load.flush()
        await settled(stage)
        worker.kill()
        await damage(stage, 1)
        text = await refused(stage, "state", "verify")
        assert (text.count(": same, "), "partition 1: 3 differences" in text) == (PARTITIONS - 1, True), text
        assert "give --yes" in await refused(stage, "state", "rebuild", "1")

        worker.start()
        await worker.ready()
        await said(stage, "state", "rebuild", "1", "--yes")
        await load.run(2, 300)
        await load.flush()
        assert await worker.ended() == 1, "the owner is shut out"
        assert worker.said("another worker has taken over partition 1")
        worker.start()
        await worker.ready()
        await settled(stage)
        assert (await said(stage, "state", "verify")).count(": same, ") == PARTITIONS
    assert await worker.stop() == 0
    assert (await verdict(stage)).differences == ()

    covered = {part.partition: part.covered.applied for part in CopyReader(file).parts() if part.role == ENGINE}
    await cut(stage, EVENTS.name, {at: offset + 1 for at, offset in covered.items()})
    text = await refused(stage, "state", "verify", "1")
    assert f"begins at offset {covered[1] + 1}" in text
    assert "--from" in text
    assert "set a new TOCSIN_GROUP" in await refused(stage, "state", "rebuild", "1", "--yes")
    assert (await said(stage, "state", "verify", "--from", str(file))).count(": same, ") == PARTITIONS
    await damage(stage, 1)
    await said(stage, "state", "rebuild", "1", "--from", str(file), "--yes")
    assert "same" in await said(stage, "state", "verify", "1", "--from", str(file))


async def test_the_state_of_a_partition_that_was_lost_is_rebuilt_up_to_the_committed_offset(stage: Stage) -> None:
    worker = stage.worker("a")
    worker.start()
    await worker.ready()
    async with stage.load() as load:
        await load.run(3, 300)
        await load.flush()
        await settled(stage)
    assert await worker.stop() == 0
    topic = changelog_name(stage.settings.group, ENGINE)
    table = (await read_table(stage.settings, ENGINE, 2)).items
    async with AIOKafkaProducer(**stage.settings.kafka_client()) as producer:
        for key in table:
            await producer.send_and_wait(topic, None, key=key, partition=2)
    assert "partition 2: no state yet" in await said(stage, "state", "verify", "2")
    await said(stage, "state", "rebuild", "2", "--yes")
    assert (await read_table(stage.settings, ENGINE, 2)).items == table
