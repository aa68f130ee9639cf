"""Changelogs that are compacted hard, deleted, expired, or configured wrongly: rebuilt where that is right, else refused."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.topics import ENGINE, EVENTS, NOTIFIER, changelog
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import FaultError, Servers, Stage, Worker, open_stage, until
from tests.faults.verdict import settled, verdict

if TYPE_CHECKING:
    from pathlib import Path

FAULT = "changelog"
HARD: Final = {
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "500",
    "delete.retention.ms": "0",
}
COMPACTED_WITHIN: Final = 60.0


class Changelogs:
    """What an operator, or an accident, does to topics."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._admin = AIOKafkaAdminClient(**stage.settings.kafka_client())

    async def __aenter__(self) -> Self:
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    async def configure(self, role: str, config: Mapping[str, str]) -> None:
        """Set `config` beside what `tocsin topics` sets."""
        topic = changelog(self._stage.settings.group, role)
        answers = await self._admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic.name, {**topic.config, **config})]
        )
        if any(resource[0] for answer in answers for resource in answer.resources):
            raise FaultError(f"{topic.name} could not be configured: {answers}")

    async def recreate(self, role: str) -> None:
        """Delete the changelog, and let `tocsin topics` create it."""
        name = changelog(self._stage.settings.group, role).name
        await self._admin.delete_topics([name])
        while name in await self._admin.list_topics():
            await asyncio.sleep(0.1)
        self._stage.tocsin("topics")

    async def expire(self, topic: str) -> None:
        """Delete the records before the last one of each partition, as retention does."""
        ends: dict[int, int] = defaultdict(int)
        for record in await read_topic(self._stage.settings, topic):
            ends[record.partition] = record.offset
        await self._admin.delete_records(
            {TopicPartition(topic, number): RecordsToDelete(end) for number, end in ends.items() if end}
        )

    async def compacted(self, role: str, share: float = 0.0) -> int:
        """Wait until the cleaner has removed records, and more than `share` of all; how many.

        Of every partition, or of some where not each has any to remove.
        """
        name = changelog(self._stage.settings.group, role).name
        deadline = asyncio.get_running_loop().time() + COMPACTED_WITHIN
        while True:
            offsets: dict[int, list[int]] = defaultdict(list)
            for record in await read_topic(self._stage.settings, name):
                offsets[record.partition].append(record.offset)
            enough = all if role == ENGINE else any  # the notifier has little to keep
            written = sum(each[-1] + 1 for each in offsets.values())
            removed = written - sum(map(len, offsets.values()))
            is_everywhere = len(offsets) == self._stage.partitions and enough(len(each) <= each[-1] for each in offsets.values())
            if is_everywhere and removed > share * written:
                return removed
            if asyncio.get_running_loop().time() > deadline:
                raise FaultError(f"{name} was not compacted within {COMPACTED_WITHIN:.0f} s")
            await asyncio.sleep(0.3)


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """Compaction to the last record, a changelog lost and made anew, and what must be refused."""
    injected = []
    roles = (ENGINE, NOTIFIER) if long else (ENGINE,)
    with open_stage(servers, folder, seed) as stage:
        stage.prepare()
        worker = stage.worker("a", instance="a")
        async with Changelogs(stage) as changelogs:
            async with stage.load() as load:
                for role in roles:
                    await changelogs.configure(role, HARD)
                await load.burst(1_000, 10)
                worker.start()
                await worker.ready()
                steady = asyncio.create_task(load.run(110.0, 300.0))
                for _ in range(3 if long else 1):
                    for role in roles:
                        await changelogs.compacted(role)
                    worker.kill()
                    worker.lose_disk()
                    worker.start()
                    await worker.ready()
                    injected.append("compacted hard, then the disk lost")
                for role in (ENGINE, NOTIFIER):
                    await worker.stop()
                    await changelogs.recreate(role)
                    worker.start()
                    await worker.ready()
                    injected.append("deleted and created again, behind the local state")
                    for text in ("it holds changelog offset", "the state is made again from it"):
                        await until(partial(worker.said, text), f"{worker.log} to say {text!r}", within=10)
                await load.end(steady)
                await settled(stage)
            await worker.stop()
            found = await verdict(stage)
            injected += await _refused(stage, changelogs, worker, long=long)
        told = [f"there is a traceback in {worker.log}"] if worker.said("Traceback") else []
    counts = {name: injected.count(name) for name in dict.fromkeys(injected)}
    text = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in counts.items())
    return Row(FAULT, text, found.compared(), (*found.differences, *told))


async def _refused(stage: Stage, changelogs: Changelogs, worker: Worker, *, long: bool) -> list[str]:
    """What no worker may start on. Each ends with status 1 and one line that names the remedy."""
    name = changelog(stage.settings.group, ENGINE).name
    await changelogs.configure(ENGINE, {"cleanup.policy": "compact,delete", "max.message.bytes": "1048588"})
    await _ends(worker, f"{name} has cleanup.policy=compact,delete instead of compact", "max.message.bytes=1048588", "--yes")
    await changelogs.configure(ENGINE, {"cleanup.policy": "delete"})
    await changelogs.expire(name)
    stage.tocsin("topics", "--yes")
    worker.lose_disk()
    await _ends(worker, f"{name}[", "begins at offset", "set a new TOCSIN_GROUP")
    refused = ["retention set, batches limited: refused", "records expired, then the disk lost: refused"]
    if long:
        await changelogs.expire(stage.settings.topic_prefix + EVENTS.name)
        await changelogs.recreate(ENGINE)
        await _ends(worker, f"{name}[", "The log begins at offset", "set a new TOCSIN_GROUP")
        refused.append("deleted and created again, events expired: refused")
    return refused


async def _ends(worker: Worker, *texts: str) -> None:
    began = worker.log.read_text().count("\n")
    worker.start()
    status = await worker.ended()
    said = [line for line in worker.log.read_text().splitlines()[began:] if "the worker ends: " in line]
    if status != 1 or len(said) != 1 or not all(text in said[0] for text in texts):
        raise FaultError(f"status {status}, {said} instead of {texts}; see {worker.log}")
