"""The servers of the tests do what the tests rely on."""

from __future__ import annotations

import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.settings import Settings
from tests.conftest import Topics
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.integration


async def test_topics_are_created_as_configured(settings: Settings, topics: Topics) -> None:
    await topics.create(partitions=2)
    names = await topics.admin.list_topics()
    assert f"{settings.topic_prefix}mcp.events" in names
    assert f"{settings.group}-engine-state-changelog" in names
    described = {topic["topic"]: len(topic["partitions"]) for topic in await topics.admin.describe_topics(names)}
    assert described[f"{settings.topic_prefix}mcp.events"] == 2
    assert described[f"{settings.topic_prefix}mcp.rules"] == 1


async def test_a_killed_broker_comes_back_with_its_data(own_kafka: KafkaServer) -> None:
    settings = Settings(bootstrap_servers=own_kafka.bootstrap)
    await _publish(settings, "kept", b"before")
    own_kafka.kill()
    assert not own_kafka.is_running
    own_kafka.start()
    assert await _first(settings, "kept") == b"before"


async def test_a_paused_redis_goes_on(own_redis: RedisServer) -> None:
    own_redis.pause()
    assert not own_redis.answers()
    own_redis.resume()
    client = redis.asyncio.from_url(own_redis.url)
    assert await client.ping()
    await client.aclose()


async def _publish(settings: Settings, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(**settings.kafka_client(), acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def _first(settings: Settings, topic: str) -> bytes | None:
    async with AIOKafkaConsumer(topic, **settings.kafka_client(), auto_offset_reset="earliest") as consumer:
        value: bytes | None = (await consumer.getone()).value
        return value
