"""Dead letters, listed, shown and redriven on a real broker while workers are killed: each counts once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from schemas.dead_letter import DeadReason, dead_letter_headers
from streams.partitioner import event_key, partition_of
from streams.topics import DEAD_LETTERS, ENGINE, EVENTS, changelog_name
from tests.commands.running import tocsin
from tests.faults.log import read_topic
from tests.faults.stage import PARTITIONS, RULES, Servers, Stage, open_stage
from tests.faults.state import fold_changelog
from tests.faults.verdict import settled, verdict
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.integration

CALLS = Path(__file__).parent / "calls"
HOME = partition_of("default", "files", PARTITIONS)


def event(service: str = "files", **fields: Any) -> dict[str, Any]:
    return {"ts": time.time_ns() // 1000, "kind": "operation", "service": service, "tool": "read", "outcome": "ok"} | fields


async def send(stage: Stage, *values: bytes) -> None:
    async with AIOKafkaProducer(**stage.settings.kafka_client()) as producer:
        for value in values:
            topic = stage.settings.topic_prefix + EVENTS.name
            await producer.send_and_wait(topic, value, key=event_key("default", "files"), partition=HOME)


async def said(stage: Stage, *arguments: str, status: int = 0) -> str:
    """What a command says, in this process: starting one takes longer than most of them."""
    done = await asyncio.to_thread(tocsin, stage.settings, *arguments)
    assert done.exit_code == status, done.output
    return done.output


async def dead(stage: Stage, number: int) -> list[str]:
    """The places of the dead letters, once there are so many."""
    topic = stage.settings.topic_prefix + DEAD_LETTERS.name
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = await read_topic(stage.settings, topic)
        if len(found) >= number:
            return [f"{record.partition}/{record.offset}" for record in found]
        await asyncio.sleep(0.2)
    raise AssertionError(f"waited for {number} dead letters")


async def test_a_redriven_record_counts_once_however_often_and_after_kills(
    kafka: KafkaServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    with open_stage(Servers(tmp_path, kafka, redis_server), tmp_path / "stage", 1, control_key="") as stage:
        await _play(stage, tmp_path)


async def _play(stage: Stage, tmp_path: Path) -> None:
    stage.prepare(RULES, CALLS)
    worker = stage.worker("a")
    worker.start()
    await worker.ready()
    bad = [event(), event("mail", dur_us="slow")]
    async with stage.load() as load:
        await load.run(4, 300)
        await send(stage, json.dumps(bad).encode(), b"nonsense\x1b[2J")
        first, second = await dead(stage, 2)
        await load.run(1, 300)
        await load.flush()
    listed = await said(stage, "dlq", "list")
    assert first in listed
    assert "ill_typed" in listed
    assert listed.endswith("2 dead letters\n")
    assert "undecodable" in await said(stage, "dlq", "list", "--summary", "--since", "5m")
    shown = await said(stage, "dlq", "show", second, "--raw", str(tmp_path / "raw"))
    assert "nonsense\\x1b[2J" in shown
    assert "\x1b" not in shown
    assert (tmp_path / "raw").read_bytes() == b"nonsense\x1b[2J"

    refused = await said(stage, "dlq", "redrive", "--all", "--yes", status=1)
    assert "0 dead letters can be redriven, 2 would be refused" in refused
    mended = tmp_path / "mended.json"
    mended.write_text(json.dumps([event(), event("mail", dur_us=7)]))
    edit = ("dlq", "redrive", first, "--value", str(mended))
    chosen = ("--reason", "ill_typed", "--since", "2h")
    assert (await said(stage, "dlq", "list", *chosen)).endswith("1 dead letters\n")
    assert "0 dead letters can be redriven, 1 would" in await said(stage, "dlq", "redrive", *chosen, "--dry-run", status=1)
    assert "1 dead letters can be redriven" in await said(stage, *edit, "--dry-run")
    await said(stage, *edit)
    await settled(stage)
    worker.kill()
    worker.lose_disk()
    other = tmp_path / "other.json"
    other.write_text(json.dumps(event("mail")))
    both = [asyncio.to_thread(stage.tocsin, *edit), asyncio.to_thread(stage.tocsin, *edit[:-1], str(other))]
    await asyncio.gather(*both)
    worker.start()
    await worker.ready()
    await said(stage, *edit)
    await settled(stage)
    assert await worker.stop() == 0
    assert (await verdict(stage)).differences == ()
    assert await counted(stage, "mail") == 1, "one of the four redrives counts, and it was forwarded once"


async def counted(stage: Stage, service: str) -> int:
    """How many events the rule that counts calls has of a service."""
    tables = fold_changelog(await read_topic(stage.settings, changelog_name(stage.settings.group, ENGINE)))
    found: dict[bytes, int] = {}
    for table in tables.values():
        for key, value in table.items():
            if key[:1] == b"c" and f'"{service}"'.encode() in key:
                found[key[1:9]] = found.get(key[1:9], 0) + msgspec.msgpack.decode(value)[1]
    assert found, "no rule counts the service"
    return max(found.values())


async def test_redrive_asks_and_refuses_what_it_cannot_find(
    kafka: KafkaServer, redis_server: RedisServer, tmp_path: Path
) -> None:
    with open_stage(Servers(tmp_path, kafka, redis_server), tmp_path / "stage", 1) as stage:
        stage.prepare()
        assert "there is no dead letter 0/7: its partition is empty" in await said(stage, "dlq", "show", "0/7", status=1)
        assert "mcp.events.dlq has 4 partitions" in await said(stage, "dlq", "show", "9/9", status=1)
        assert "there is no dead letter 9/9" in await said(stage, "dlq", "redrive", "9/9", status=1)
        assert "give either places, or filters" in await said(stage, "dlq", "redrive", status=2)
        assert "0 dead letters" in await said(stage, "dlq", "list")
        assert "0 dead letters can be redriven" in await said(stage, "dlq", "redrive", "--all", "--yes", status=1)

        await send(stage, json.dumps(event()).encode())
        await bury(stage, json.dumps(event()).encode(), 3_600_000)
        assert "the topic was deleted and created again" in await said(stage, "dlq", "redrive", "0/0", status=1)


async def bury(stage: Stage, value: bytes, age: int) -> None:
    """Write a dead letter of the first event of the home partition, which stood there `age` ms ago."""
    topic, appended = stage.settings.topic_prefix + EVENTS.name, time.time_ns() // 1_000_000 - age
    headers = dead_letter_headers(
        (), topic=topic, partition=HOME, offset=0, timestamp=appended, stage="decode", reason=DeadReason.ILL_TYPED, message="x"
    )
    async with AIOKafkaProducer(**stage.settings.kafka_client()) as producer:
        dead = stage.settings.topic_prefix + DEAD_LETTERS.name
        await producer.send_and_wait(dead, value, key=event_key("default", "files"), partition=0, headers=list(headers))
