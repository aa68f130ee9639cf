"""The servers of the tests do what the tests rely on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.settings import Settings
from tests.conftest import Topics
from tests.servers.kafka import KafkaCluster, KafkaServer
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


async def test_a_cluster_takes_writes_without_one_broker_and_none_without_two(tmp_path: Path) -> None:
    cluster = KafkaCluster(tmp_path / "cluster")
    try:
        await asyncio.to_thread(cluster.start)
        settings = Settings(bootstrap_servers=cluster.bootstrap)
        await _publish(settings, "kept", b"by three", copies=3)
        async with AIOKafkaProducer(**settings.kafka_client(), acks="all", enable_idempotence=True) as producer:
            first, second, third = cluster.nodes.values()
            first.kill()
            await producer.send_and_wait("kept", b"by two")
            second.kill()
            waiting = await producer.send("kept", b"by one")
            done, _ = await asyncio.wait([waiting], timeout=2)
            assert not done
            await asyncio.gather(asyncio.to_thread(first.start), asyncio.to_thread(second.start))
            await waiting
        assert third.is_running
        assert await _first(settings, "kept") == b"by three"
    finally:
        cluster.kill()


async def test_a_paused_redis_goes_on(own_redis: RedisServer) -> None:
    own_redis.pause()
    assert not own_redis.answers()
    own_redis.resume()
    client = redis.asyncio.from_url(own_redis.url)
    assert await client.ping()
    await client.aclose()


async def _publish(settings: Settings, topic: str, value: bytes, copies: int = 1) -> None:
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, copies)])
    await admin.close()
    async with AIOKafkaProducer(**settings.kafka_client(), acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def _first(settings: Settings, topic: str) -> bytes | None:
    async with AIOKafkaConsumer(topic, **settings.kafka_client(), auto_offset_reset="earliest") as consumer:
        value: bytes | None = (await consumer.getone()).value
        return value
