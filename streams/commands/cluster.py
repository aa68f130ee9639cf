"""What the brokers have: topics, their partitions, replicas, configuration, and whether they hold data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, TopicAlreadyExistsError, UnsupportedVersionError, for_code

from streams.consumer import KafkaConsumer

SETTLES_WITHIN: Final = 15.0
_OVERRIDE: Final = 1
"""Source of a configuration that was set on the topic itself."""


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as it is. `config` holds what the broker tells, nothing where it tells nothing; `overrides` what was set."""

    partitions: int
    replication: int
    config: Mapping[str, str]
    overrides: Mapping[str, str]
    holds_data: bool


class TopicError(RuntimeError):
    """The broker refused to create or change a topic."""


class Cluster:
    """A connection to the brokers. `client` is Settings.kafka_client()."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._admin = AIOKafkaAdminClient(**client)
        self._consumer = KafkaConsumer(**client, group_id=None, enable_auto_commit=False)
        self.brokers = 0
        self.can_alter = True
        """Whether the broker can change the configuration of a topic; the embedded one cannot."""

    async def __aenter__(self) -> Self:
        try:
            await self._admin.start()
            await self._consumer.start()
            self.brokers = len((await self._admin.describe_cluster())["brokers"])
            await self._admin.alter_configs([])
        except (IncompatibleBrokerVersion, UnsupportedVersionError):
            self.can_alter = False
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def find(self, names: Iterable[str]) -> dict[str, Found]:
        """Those of `names` that exist."""
        described = {topic["topic"]: topic["partitions"] for topic in await self._admin.describe_topics()}
        there = [name for name in names if name in described]
        configs = await self._configs(there)
        return {
            name: Found(
                partitions=len(described[name]),
                replication=min((len(partition["replicas"]) for partition in described[name]), default=0),
                config={key: value for key, (value, _) in configs.get(name, {}).items()},
                overrides={key: value for key, (value, source) in configs.get(name, {}).items() if source == _OVERRIDE},
                holds_data=await self._holds_data(name, len(described[name])),
            )
            for name in there
        }

    async def _configs(self, names: list[str]) -> dict[str, dict[str, tuple[str, int]]]:
        if not names:
            return {}
        try:
            answers = await self._admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
        except (IncompatibleBrokerVersion, UnsupportedVersionError):
            return {}
        found: dict[str, dict[str, tuple[str, int]]] = {}
        for resource in (resource for answer in answers for resource in answer.resources):
            code, message, _, name, entries = resource[:5]
            if code:
                raise TopicError(f"the configuration of {name} cannot be read: {message or for_code(code).__name__}")
            found[name] = {entry[0]: (entry[1], entry[3]) for entry in entries if entry[1] is not None}
        return found

    async def _holds_data(self, name: str, partitions: int) -> bool:
        every = [TopicPartition(name, number) for number in range(partitions)]
        begin, end = await self._consumer.beginning_offsets(every), await self._consumer.end_offsets(every)
        return any(end[partition] > begin[partition] for partition in every)

    async def create(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> bool:
        """Create a topic. False: somebody else created it meanwhile, and it is left as it is. Raises TopicError."""
        answer = await self._admin.create_topics([NewTopic(name, partitions, replication, topic_configs=dict(config))])
        for _, code, message in answer.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise TopicError(f"{name} cannot be created: {message or for_code(code).__name__}")
        return all(code == 0 for _, code, _ in answer.topic_errors)

    async def settled(self, names: Iterable[str]) -> None:
        """Wait until every partition of `names` is known and led: brokers say 'created' a moment before. Raises TopicError."""
        missing = set(names)
        deadline = asyncio.get_running_loop().time() + SETTLES_WITHIN
        while missing:
            for topic in await self._admin.describe_topics():
                if topic["partitions"] and all(partition["leader"] >= 0 for partition in topic["partitions"]):
                    missing.discard(topic["topic"])
            if missing and asyncio.get_running_loop().time() > deadline:
                raise TopicError(
                    f"no broker leads {', '.join(sorted(missing))} after {SETTLES_WITHIN:.0f} s; are all brokers up?"
                )
            await asyncio.sleep(0.05)

    async def configure(self, name: str, config: Mapping[str, str], overrides: Mapping[str, str]) -> None:
        """Set `config` beside `overrides`, what is set already (the request replaces all of it). Raises TopicError."""
        answers = await self._admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {**overrides, **config})])
        for code, message, *_ in (resource for answer in answers for resource in answer.resources):
            if code:
                raise TopicError(f"{name} cannot be configured: {message or for_code(code).__name__}")
