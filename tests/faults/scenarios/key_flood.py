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
_RULE: Final = """from schemas.rule import Rule, above, count, event

flood = Rule(
    name="flood", select=event.kind == "metric", measure=count(), by=("tenant", "service", "attributes.key"),
    over="1h", every="30m", warning=above({least}), cooldown="0s", summary="{{value:g}} of {{key}}",
)
busy = Rule(
    name="busy", select=event.kind == "operation", measure=count(), over="2s", every="1s", warning=above(8), cooldown="0s",
    summary="{{value:g}} operations of {{service}}",
)
"""


async def run(servers: Servers, seed: int, folder: Path, *, long: bool) -> Row:
    """In the short form the bound on groups is small, so that it is reached."""
    keys, max_groups = (300_000, 100_000) if long else (4_000, 500)
    dice = random.Random(seed)
    port = str(free_port())
    with open_stage(servers, folder, seed, partitions=PARTITIONS, metrics_port=port, max_groups=str(max_groups)) as stage:
        rule = stage.folder / "flood.py"
        rule.write_text(_RULE.format(least=keys // 20))
        stage.prepare(rule)
        worker = stage.worker("a", instance="a")
        gauge = Gauge(worker)
        worker.start()
        async with stage.load() as load:
            await worker.ready()
            await load.run(2, 200)
            await _flood(load, dice, keys * 3 // 4)
            await gauge.reaches("events_counted_total", keys * 3 // 4)
            taken = gauge.memory()
            await _flood(load, dice, keys // 4)
            await gauge.reaches("events_counted_total", keys)
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
    injected = f"{keys:,} random keys, and one with 90 % of the weight; bound {max_groups:,} groups on {PARTITIONS} "
    injected += f"partitions, {groups:,.0f} held, {overflow:,.0f} events over it; {taken:.0f} MiB, then {full:.0f}"
    return Row(FAULT, injected, found.compared(), tuple(differences))


async def _flood(load: Load, dice: random.Random, number: int) -> None:
    """Random keys, one each; the hot one has few events of a large weight, which the oracle counts in time."""
    every = max(number // 500, 1)
    for at in range(number):
        service = f"service-{at % 8}"
        event = {"ts": int(time.time() * 1e6), "kind": "metric", "tenant": "flood", "service": service, "name": "n", "value": 1}
        event["attributes"] = {"key": f"{dice.getrandbits(64):x}"}
        events = [event]
        if at % every == 0:
            events.append(event | {"attributes": {"key": "hot"}, "weight": 9 * every})
        value = json.dumps(events).encode()
        partition = partition_of("flood", service, load.partitions)
        await load.producer.send(load.topic, value, key=event_key("flood", service), partition=partition)
    await load.producer.flush()
