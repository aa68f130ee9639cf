"""What was decided before the state was lost: read from the log where a partition begins with none.

A replay would decide otherwise, by other cooldowns: a firing that was dispatched might be held back now, and its resolve with
it, so that somebody would wait for ever. So what `mcp.alerts` says was dispatched counts as dispatched, and is not sent again,
and what ended while it was held back stays so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from aiokafka.errors import KafkaError

from schemas.alert import Reason
from streams.notifier.policy import DECISION_HEADER
from streams.records import Incoming
from streams.settings import Settings
from streams.topic_reader import TopicReader
from streams.topics import ALERTS, TRANSITIONS

log = logging.getLogger("tocsin.notifier")

_PAUSE: Final = 1.0
_FRESH: Final = 30.0
"""Seconds for which partitions that are opened together share what was read."""


class _Said(msgspec.Struct, gc=False):
    id: str
    dedup_key: str
    reason: str


_DECODER: Final = msgspec.json.Decoder(_Said)


@dataclass(frozen=True, slots=True)
class Former:
    """`dispatched`: the ids on `mcp.alerts`, each with whether it was stale. `ended`: episodes that ended while held back."""

    dispatched: dict[str, bool] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()


class FormerDecisions:
    """Reads them when they are asked for."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self._settings, self._now = settings, now
        self._lock = asyncio.Lock()
        self._held: tuple[float, Former] | None = None

    async def read(self) -> Former:
        """All there are now. Brokers that are away are waited for. Raises MissingTopicError."""
        async with self._lock:
            while self._held is None or self._now() - self._held[0] > _FRESH:
                try:
                    self._held = self._now(), Former(await self._dispatched(), await self._ended())
                except (KafkaError, OSError, TimeoutError) as error:
                    log.warning("notifier: what was decided before cannot be read yet: %s", error)
                    await asyncio.sleep(_PAUSE)
            return self._held[1]

    async def _dispatched(self) -> dict[str, bool]:
        found: dict[str, bool] = {}
        async with TopicReader(self._settings.kafka_client(), self._settings.topic_prefix + ALERTS.name) as reader:
            async for record in reader.to_end():
                said = _read(record)
                if said is None:
                    continue
                # In time once is in time: somebody was told.
                found[said.id] = found.get(said.id, True) and said.reason == Reason.STALE
        return found

    async def _ended(self) -> frozenset[str]:
        found: set[str] = set()
        async with TopicReader(self._settings.kafka_client(), self._settings.topic_prefix + TRANSITIONS.name) as reader:
            async for record in reader.to_end():
                is_ended = (DECISION_HEADER, Reason.ENDED_WHILE_HELD.encode()) in record.headers
                if is_ended and (said := _read(record)) is not None:
                    found.add(said.dedup_key)
        return frozenset(found)


def _read(record: Incoming) -> _Said | None:
    """What a record says; None for one that is no decision: anybody may write to a topic, and that must not stop the notifier."""
    try:
        return _DECODER.decode(record.value or b"")
    except msgspec.DecodeError as error:
        log.error("notifier: no decision at offset %d of what was decided before: %s", record.offset, error)
        return None
