"""Minutes of telemetry that lay there while no worker ran, folded at full speed: nobody is paged for what is long over."""

from __future__ import annotations

import asyncio
import bisect
import json
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.partitioner import partition_of
from streams.topics import ALERTS, EVENTS
from tests.faults.load import Load
from tests.faults.log import read_topic
from tests.faults.row import Row
from tests.faults.stage import Servers, Stage, Worker, open_stage, until
from tests.faults.verdict import settled, verdict

FAULT = "backlog"
SLACK: Final = 3_000_000
"""Microseconds between a decision and its record on the topic, at most."""
MAX_DIGESTS: Final = 3
"""One, unless the machine is so busy that nothing comes for some seconds."""
_PAGED: Final = re.compile(r"tocsin\.alerts\s+(?:FIRING|RESOLVED) .*; ([0-9a-f]{32})\)$", re.MULTILINE)
_MISSED: Final = re.compile(r"MISSED while (\d+) min behind: (\d+) alerts?, (\d+) already resolved")


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """10 minutes in the long form, one in the short form; what is older than half of that is stale."""
    seconds, number = (600, 60_000) if long else (60, 9_000)
    page_max_age = seconds // 2
    with open_stage(servers, folder, seed, page_max_age=str(page_max_age)) as stage:
        stage.prepare()
        await keep_times(stage)
        worker = stage.worker("a")
        async with stage.load() as load:
            await replay(load, number, seconds)
            began = time.monotonic()
            worker.start()
            await worker.ready("notifier")
            await load.run(4, 300)
            await load.flush()
            await settled(stage)
        took = time.monotonic() - began
        alerts = await alerts_of(stage)
        fresh = {alert["id"] for alert in alerts if alert["reason"] != "stale"}
        await until(lambda: fresh <= set(_PAGED.findall(said(worker))) and worker.said("MISSED while"), "the channel to tell")
        await worker.stop()
        found = await verdict(stage)
        differences = (
            *found.differences,
            *wrong_reasons(alerts, page_max_age * 1_000_000),
            *wrong_pages(alerts, said(worker)),
            *await false_absences(stage, alerts),
        )
    stale, digests = len(alerts) - len(fresh), len(_MISSED.findall(said(worker)))
    injected = f"{number:,} events of {seconds // 60} min at once, caught up with in {took:.0f} s"
    return Row(
        FAULT, injected, f"{found.compared()}, {stale} of them stale in {digests} digest{'s' * (digests > 1)}", differences
    )


async def keep_times(stage: Stage) -> None:
    """Let the event topic keep the times of its producers, so that a backlog need not be waited for."""
    admin = AIOKafkaAdminClient(**stage.settings.kafka_client())
    await admin.start()
    try:
        configs = EVENTS.config | {"message.timestamp.type": "CreateTime"}
        topic = stage.settings.topic_prefix + EVENTS.name
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=configs)])
    finally:
        await admin.close()


class Backdated:
    """A producer whose records were appended `at` that time (seconds)."""

    def __init__(self, producer: Any) -> None:
        self.at = 0.0
        self._producer = producer

    async def send(self, topic: str, value: bytes, **options: Any) -> asyncio.Future[Any]:
        sent: asyncio.Future[Any] = await self._producer.send(topic, value, timestamp_ms=int(self.at * 1000), **options)
        return sent


async def replay(load: Load, number: int, seconds: float) -> None:
    """Append `number` events of the last `seconds`, each as if it had been appended when it happened."""
    usual, began = load.producer, time.time() - seconds
    backdated = Backdated(usual)
    load.producer = backdated
    for place in range(number):
        backdated.at = began + seconds * place / number
        await load.send(backdated.at)
    await load.flush()
    load.producer = usual


async def alerts_of(stage: Stage) -> list[dict[str, Any]]:
    """The alerts, with the time at which each came (µs) as `sent`."""
    records = await read_topic(stage.settings, stage.settings.topic_prefix + ALERTS.name)
    return [json.loads(record.value or b"") | {"sent": record.timestamp * 1000} for record in records]


def said(worker: Worker) -> str:
    """What the worker printed."""
    return worker.log.read_text(errors="replace")


def wrong_reasons(alerts: Sequence[Mapping[str, Any]], page_max_age: int) -> list[str]:
    """Firings that paged though they were old, or did not though they were not; resolves that are not as their firings."""
    found = []
    paged: set[str] = set()
    for alert in alerts:
        stale = alert["reason"] == "stale"
        if alert["status"] == "resolved":
            if stale == (alert["dedup_key"] in paged):
                found.append(f"a resolve is not as its firing: {alert['rule']} {alert['labels']}, {alert['reason']}")
            continue
        if not stale:
            paged.add(alert["dedup_key"])
        age = alert["sent"] - alert["details"]["append_time"]
        if stale and "age" not in alert["details"]:
            found.append(f"the age is not recorded: {alert['id']}")
        if stale != (age > page_max_age) and abs(age - page_max_age) > SLACK and alert["reason"] != "cooldown_over":
            found.append(f"{alert['reason']} at an age of {age / 1e6:.1f} s: {alert['rule']} {alert['labels']}")
    return found


def wrong_pages(alerts: Sequence[Mapping[str, Any]], text: str) -> list[str]:
    """What the channel told of one by one, and in digests."""
    found = []
    stale = {alert["id"] for alert in alerts if alert["reason"] == "stale"}
    pages = set(_PAGED.findall(text))
    if pages & stale:
        found.append(f"stale pages: {len(pages & stale)}, such as {min(pages & stale)}")
    if lost := {alert["id"] for alert in alerts} - stale - pages:
        found.append(f"no page for {len(lost)} alerts, such as {min(lost)}")
    digests = _MISSED.findall(text)
    told = sum(int(number) for _, number, _ in digests)
    episodes = {alert["dedup_key"] for alert in alerts if alert["id"] in stale and alert["status"] == "firing"}
    if told != len(episodes) or not 1 <= len(digests) <= MAX_DIGESTS:
        found.append(f"{len(digests)} digests tell of {told} alerts, and {len(episodes)} were stale")
    if len(episodes) < 20 or not pages:
        found.append(f"nothing to compare: {len(episodes)} stale episodes, {len(pages)} pages")
    return found


async def false_absences(stage: Stage, alerts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Services that were said to be silent, and were not: an event of the window lies before the deciding record."""
    heard: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for record in await read_topic(stage.settings, stage.settings.topic_prefix + EVENTS.name):
        if record.headers:
            continue
        events = json.loads(record.value or b"")
        for event in events if isinstance(events, list) else [events]:
            if partition_of(event["tenant"], event["service"], stage.partitions) == record.partition:
                heard[event["tenant"], event["service"]].append((event["ts"], record.offset))
    found = []
    for alert in alerts:
        if alert["rule"] != "silent" or alert["status"] != "firing":
            continue
        events = sorted(heard[alert["tenant"], alert["source"]])
        start, end = alert["window"]["start"], alert["window"]["end"]
        within = events[bisect.bisect_left(events, (micros(start), -1)) : bisect.bisect_left(events, (micros(end), -1))]
        if any(offset < alert["details"]["offset"] for _, offset in within):
            found.append(f"false absence: {alert['source']} from {start} to {end}")
    return found


def micros(text: str) -> int:
    """Microseconds of a time as alerts show it."""
    return int(datetime.fromisoformat(text).timestamp() * 1_000_000)
