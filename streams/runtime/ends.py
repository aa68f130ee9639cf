"""The ends of partitions, asked of the brokers by a client of its own: it answers also when a consumer is stuck."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.consumer import KafkaConsumer
from streams.settings import Settings

WITHIN = 4.0
"""Seconds that brokers get to answer."""


class Ends:
    """Asks for ends. Brokers that do not answer, or a partition that has no leader, are no error here."""

    def __init__(self, settings: Settings, within: float = WITHIN) -> None:
        self._settings, self._within = settings, within
        self._client: KafkaConsumer | None = None

    async def of(self, topic: str, partitions: Iterable[int]) -> dict[int, int] | None:
        """The end of each of `partitions`; None where the brokers do not say it within a few seconds."""
        places = [TopicPartition(topic, number) for number in partitions]
        try:
            async with asyncio.timeout(self._within):
                client = self._client = self._client or await self._connected()
                found = await client.end_offsets(places) if places else {}
        except (KafkaError, OSError, TimeoutError):
            await self.close()
            return None
        return {place.partition: end for place, end in found.items()}

    async def close(self) -> None:
        """Disconnect; asking connects again."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(self._within):
                    await client.stop()

    async def _connected(self) -> KafkaConsumer:
        client = KafkaConsumer(**self._settings.kafka_client(), group_id=None, enable_auto_commit=False)
        try:
            await client.start()
        except BaseException:
            await client.stop()
            raise
        return client
