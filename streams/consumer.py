"""The client's consumer, that can be stopped while brokers are away."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer


class KafkaConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer whose `stop` ends in order whatever its fetches do.

    The client's own awaits each fetch that it cancels, and one that waits to try again hands on its cancellation. Whoever
    stops the consumer would take it for his own: a task ends without an error, and nobody is told.
    """

    async def stop(self) -> None:
        """End the fetches, leave the group, close the connections."""
        if self._fetcher is not None and not self._closed:
            await _cancelled({self._fetcher._fetch_task})  # so that nothing more is begun
            await _cancelled(self._fetcher._pending_tasks)
            self._fetcher._pending_tasks.clear()
        await super().stop()


async def _cancelled(tasks: set[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
