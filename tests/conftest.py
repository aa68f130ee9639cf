"""Fixtures that every test may use: the real servers, settings of one's own, topics, a clock."""

from __future__ import annotations

import os
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.settings import Settings
from streams.testing import FakeClock as Clock
from streams.topics import ENGINE, NOTIFIER, PARTITIONS, TOPICS, Topic, changelog
from tests.servers.kafka import KafkaFetchError, KafkaServer
from tests.servers.process import ServerError
from tests.servers.programs import MissingProgramError
from tests.servers.redis import RedisServer

_Running = TypeVar("_Running", KafkaServer, RedisServer)


def pytest_configure() -> None:
    """Leave through the exit handlers on SIGTERM, so that no server outlives the run."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _serve(make: Callable[[], _Running]) -> Iterator[_Running]:
    """Start a server and stop it in the end. Without the programs that it needs: fail in CI, skip elsewhere."""
    try:
        server = make()
        server.start()
    except (MissingProgramError, KafkaFetchError, ServerError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """The broker that the tests share. A test that stops or kills one starts its own: see `own_kafka`."""
    yield from _serve(lambda: KafkaServer(tmp_path_factory.mktemp("kafka")))


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker of one test, which may pause, kill and start it again."""
    yield from _serve(lambda: KafkaServer(tmp_path / "kafka"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis that the tests share; keys are kept apart by the group of `settings`."""
    yield from _serve(lambda: RedisServer(tmp_path_factory.mktemp("redis")))


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one test, which may pause, kill and start it again."""
    yield from _serve(lambda: RedisServer(tmp_path / "redis"))


@pytest.fixture
def settings(kafka: KafkaServer, redis_server: RedisServer, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Settings for the shared servers with topics and a group that no other test uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    own = f"{name}-{uuid.uuid4().hex[:8]}"
    return Settings.from_environment(
        {
            "TOCSIN_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "TOCSIN_REDIS_URL": redis_server.url,
            "TOCSIN_DATA_DIR": str(tmp_path / "data"),
            "TOCSIN_GROUP": own,
            "TOCSIN_TOPIC_PREFIX": f"{own}.",
            "TOCSIN_METRICS_PORT": "0",
        }
    )


@dataclass(frozen=True, slots=True)
class Topics:
    """Creates topics on the broker of `settings`, configured as tocsin configures them."""

    settings: Settings
    admin: AIOKafkaAdminClient

    async def create(self, *, partitions: int = PARTITIONS, topics: tuple[Topic, ...] = TOPICS, changelogs: bool = True) -> None:
        """Create `topics` and the changelogs, with `partitions` each where a topic does not fix its own number."""
        group = self.settings.group
        wanted = {self.settings.topic_prefix + topic.name: topic for topic in topics}
        if changelogs:
            wanted |= {topic.name: topic for topic in (changelog(group, ENGINE), changelog(group, NOTIFIER))}
        await self.admin.create_topics(
            [NewTopic(name, topic.partitions or partitions, 1, topic_configs=topic.config) for name, topic in wanted.items()]
        )


@pytest.fixture
async def topics(settings: Settings) -> AsyncIterator[Topics]:
    """`await topics.create()` makes every topic of `settings`; they are deleted after the test."""
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    yield Topics(settings, admin)
    own = [name for name in await admin.list_topics() if name.startswith(settings.group)]
    if own:
        await admin.delete_topics(own)
    await admin.close()


@pytest.fixture
def clock() -> Clock:
    """A clock at 2026-01-01T00:00:00Z."""
    return Clock()
