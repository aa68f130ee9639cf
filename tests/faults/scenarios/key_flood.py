"""Random keys without end, and one hot key with nearly all of the load: memory is bounded, and what has a group is exact."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Final

from streams.partitioner import event_key, partition_of
from tests.faults.gauge import Gauge
from tests.faults.load import Load
from tests.faults.row import Row
from tests.faults.stage import Servers, open_stage
from tests.faults.verdict import settled, verdict
from tests.servers.process import free_port

FAULT = "key flood"
GROWTH: Final = 32
"""MiB by which resident memory may grow over the last quarter of the flood, when all groups are taken."""
PARTITIONS: Final = 2
HOT: Final = 0.9
"""Share of one key in the load of the first part."""
_SERVICES: Final = 8
_ARRAY: Final = 50
"""Events of one record."""
_HOT_RATE: Final = 100
"""Events of the hot key in a second of event time."""
_RULES: Final = """from schemas.rule import Rule, above, count, event

flood = Rule(
    name="flood", select=event.name == "flood", measure=count(), by=("tenant", "service", "attributes.key"),
    over="1h", every="30m", warning=above(1000), cooldown="0s", summary="{{value:g}} of {{key}}",
)
hot = Rule(
    name="hot", select=event.name == "hot", measure=count(), by=("tenant", "service", "attributes.key"),
    over="2s", every="1s", warning=above({hot}), cooldown="0s", summary="{{value:g}} of {{key}}",
)
busy = Rule(
    name="busy", select=event.kind == "operation", measure=count(), over="2s", every="1s", warning=above(8), cooldown="0s",
    summary="{{value:g}} operations of {{service}}",
)
"""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """In the short form the bound on groups is small, so that it is reached."""
    keys, max_groups, hot = (1_000_000, 100_000, 50_000) if long else (4_000, 500, 1_000)
    dice = random.Random(seed)
    port = str(free_port())
    with open_stage(servers, folder, seed, partitions=PARTITIONS, metrics_port=port, max_groups=str(max_groups)) as stage:
        rule = stage.folder / "flood.py"
        rule.write_text(_RULES.format(hot=_HOT_RATE))
        stage.prepare(rule)
        worker = stage.worker("a", instance="a")
        gauge = Gauge(worker)
        async with stage.load() as load:
            await _hot(load, dice, hot)  # of the time before now, which must come before what is of now
            worker.start()
            await worker.ready()
            await load.run(2, 200)
            await _flood(load, dice, keys * 3 // 4)
            await gauge.reaches("events_counted_total", hot + keys * 3 // 4)
            taken = gauge.memory()
            await _flood(load, dice, keys // 4)
            await gauge.reaches("events_counted_total", hot + keys)
            full = gauge.memory()
            await load.run(2, 200)
            await load.flush()
            await settled(stage)
        overflow, groups = gauge.metric("overflow_events_total", rule="flood"), gauge.metric("groups")
        await worker.stop()
        found = await verdict(stage)
    differences = list(found.differences)
    if full - taken > GROWTH:
        differences.append(f"memory grew from {taken:.0f} to {full:.0f} MiB over the last quarter of the flood")
    if not overflow:
        differences.append("no event is counted as overflow of the rule")
    injected = (
        f"{keys:,} random keys, before them {hot:,} events of which {HOT:.0%} are of one key; bound {max_groups:,} groups on "
        f"each of {PARTITIONS} partitions, {groups:,.0f} held, {overflow:,.0f} events over it; {taken:.0f} MiB, then {full:.0f}"
    )
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _flood(load: Load, dice: random.Random, number: int) -> None:
    """Random keys, one event each."""
    for at in range(0, number, _ARRAY):
        now = time.time()
        keys = [f"{dice.getrandbits(64):x}" for _ in range(min(_ARRAY, number - at))]
        await _send(load, at // _ARRAY, "flood", [(now, key) for key in keys])


async def _hot(load: Load, dice: random.Random, number: int) -> None:
    """HOT of the events have one key: _HOT_RATE of them in a second, of the time before now."""
    step = HOT / _HOT_RATE
    began = time.time() - number * step
    for at in range(0, number, _ARRAY):
        keys = ["hot" if dice.random() < HOT else f"{dice.getrandbits(64):x}" for _ in range(min(_ARRAY, number - at))]
        await _send(load, 0, "hot", [(began + (at + index) * step, key) for index, key in enumerate(keys)])


async def _send(load: Load, number: int, name: str, events: list[tuple[float, str]]) -> None:
    """One record of metrics with these times and keys."""
    service = f"service-{number % _SERVICES}"
    event = {"kind": "metric", "tenant": "flood", "service": service, "name": name, "value": 1}
    value = json.dumps([event | {"ts": int(at * 1e6), "attributes": {"key": key}} for at, key in events]).encode()
    partition = partition_of("flood", service, load.partitions)
    await load.producer.send(load.topic, value, key=event_key("flood", service), partition=partition)
