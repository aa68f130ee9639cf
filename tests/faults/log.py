"""The topics of a stage as they are read afterwards, and the event topic as the plain oracle takes it.

Nothing of the decoder is used: JSON is parsed by the strict contract of schemas.event, and partitions are found by the
client library's own hash.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.partitioner import murmur2

from schemas.control import HEADER, Forward, Redrive, RulesetRecord, Tick, parse_control
from schemas.event import Event, parse_events
from schemas.rule import Ruleset
from streams.consumer import KafkaConsumer
from streams.kernel.columns import Origin, Redriven
from streams.settings import Settings
from streams.topics import RULES
from tests.kernel.log import EventsRecord, NothingRecord, Record, Row, SwitchRecord, TickRecord

MAX_VALUE: Final = 1 << 20
MAX_FUTURE: Final = 300_000_000
_STALLED: Final = 20.0


@dataclass(frozen=True, slots=True)
class Logged:
    """A record of any topic. `timestamp` is in milliseconds."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


async def partitions_of(settings: Settings, topic: str) -> list[int]:
    """The partitions of a topic. Raises LookupError where it does not exist: a verdict on nothing would be no verdict."""
    client = AIOKafkaClient(**settings.kafka_client())
    try:
        await client.bootstrap()
        found = (await client.fetch_all_metadata()).partitions_for_topic(topic)
    finally:
        await client.close()
    if not found:
        raise LookupError(f"there is no topic {topic}")
    return sorted(found)


async def read_topic(settings: Settings, topic: str) -> list[Logged]:
    """All records of a topic, in order per partition."""
    consumer = KafkaConsumer(
        **settings.kafka_client(),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 << 20,
        check_crcs=True,
    )
    places = [TopicPartition(topic, number) for number in await partitions_of(settings, topic)]
    await consumer.start()
    try:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        begins = await consumer.beginning_offsets(places)
        for place in places:
            consumer.seek(place, begins[place])
        found: list[Logged] = []
        left = {place for place in places if begins[place] < ends[place]}
        loop = asyncio.get_running_loop()
        moved = loop.time()
        while left:
            for place, records in (await consumer.getmany(*left, timeout_ms=200)).items():
                moved = loop.time()
                found += [
                    Logged(place.partition, each.offset, each.timestamp, each.key, _beginning(each.value), tuple(each.headers))
                    for each in records
                ]
            left = {place for place in left if await consumer.position(place) < ends[place]}
            if loop.time() - moved > _STALLED:
                raise TimeoutError(f"{topic} could not be read to its end")
        return found
    finally:
        await consumer.stop()


def _beginning(value: bytes | None) -> bytes | None:
    """As much of a value as tells that it is too large."""
    return value if value is None or len(value) <= MAX_VALUE else value[: MAX_VALUE + 1]


async def read_rulesets(settings: Settings) -> dict[str, Ruleset]:
    """Every ruleset that was deployed, by id."""
    held = {}
    for record in await read_topic(settings, settings.topic_prefix + RULES.name):
        if record.key is not None and record.value is not None:
            held[record.key.decode()] = json.loads(record.value)
    manifests = {key.partition("/")[2]: value for key, value in held.items() if key.startswith("ruleset/")}
    return {
        id: Ruleset(rules=tuple(held[f"rule/{revision}"] for revision in manifest["rules"].values()))
        for id, manifest in manifests.items()
    }


@dataclass(frozen=True, slots=True)
class EventLog:
    """The event topic: what each partition says, and the places of the records that must be dead letters."""

    records: Mapping[int, list[Record]]
    dead: frozenset[tuple[int, int]]
    events: int


def as_log(records: list[Logged], rulesets: Mapping[str, Ruleset], partitions: int) -> EventLog:
    """The records of the event topic by partition, as the oracle takes them. No control key is expected."""
    by_partition: dict[int, list[Record]] = defaultdict(list)
    dead: set[tuple[int, int]] = set()
    events = 0
    for record in records:
        try:
            said = _said(record, rulesets, partitions)
        except (ValueError, RecursionError):
            dead.add((record.partition, record.offset))
            said = NothingRecord(record.offset)
        if isinstance(said, EventsRecord):
            events += sum(row.origin is None for row in said.rows)
        by_partition[record.partition].append(said)
    return EventLog(by_partition, frozenset(dead), events)


def _said(record: Logged, rulesets: Mapping[str, Ruleset], partitions: int) -> Record:
    append_time = record.timestamp * 1000
    controls = [value for name, value in record.headers if name == HEADER]
    origin = redriven = None
    value = record.value or b""
    if len(value) > MAX_VALUE or len(controls) > 1:
        raise ValueError("oversized, or doubly controlled")
    if controls:
        match control := parse_control(controls[0]):
            case Tick():
                return TickRecord(record.offset, append_time)
            case RulesetRecord():
                return SwitchRecord(record.offset, append_time, control.id, control.seq, rulesets.get(control.id))
            case Forward():
                origin = Origin(control.partition, control.offset, control.index)
            case Redrive():
                redriven = Redriven(control.offset, control.timestamp * 1000)
    rows = tuple(_row(event, record.partition, partitions, origin) for event in parse_events(value))
    if (origin is not None and origin.partition >= partitions) or (redriven is not None and redriven.offset >= record.offset):
        raise ValueError("from where nothing can come")
    if any(row.ts > append_time + MAX_FUTURE for row in rows):
        raise ValueError("from the future")
    if origin is not None and (value.lstrip()[:1] == b"[" or not rows[0].local):
        raise ValueError("not a forwarded event of this partition")
    return EventsRecord(record.offset, append_time, rows, redriven)


def _row(event: Event, partition: int, partitions: int, origin: Origin | None) -> Row:
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.model_fields_set | {"tenant"}}
    fields.pop("ts", None)
    fields.pop("weight", None)
    home = (murmur2(f"{event.tenant}|{event.service}".encode()) & 0x7FFFFFFF) % partitions
    return Row(ts=event.ts, fields=fields, weight=event.weight, local=home == partition, origin=origin)
