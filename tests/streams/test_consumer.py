"""Stopping a consumer while brokers are away."""

from __future__ import annotations

import asyncio

from aiokafka import TopicPartition
from aiokafka.errors import NodeNotReadyError

from streams.consumer import KafkaConsumer
from streams.settings import Settings
from tests.conftest import Topics


async def test_who_stops_a_consumer_whose_fetch_waits_to_try_again_is_not_cancelled(settings: Settings, topics: Topics) -> None:
    await topics.create()
    consumer = KafkaConsumer(**settings.kafka_client() | {"retry_backoff_ms": 60_000}, group_id=None)
    await consumer.start()
    tried = asyncio.Event()

    async def away(*_: object, **__: object) -> None:
        tried.set()
        raise NodeNotReadyError

    send, consumer._client.send = consumer._client.send, away
    consumer.assign([TopicPartition(settings.topic_prefix + "mcp.events", 0)])
    consumer.seek(TopicPartition(settings.topic_prefix + "mcp.events", 0), 0)
    await tried.wait()
    await asyncio.sleep(0)
    consumer._client.send = send
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait([stopping])
    assert not stopping.cancelled()
    assert not consumer._client._conns or all(not conn.connected() for conn in consumer._client._conns.values())
