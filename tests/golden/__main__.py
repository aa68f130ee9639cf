"""Writes golden files of the formats as they are now: `python -m tests.golden engine notifier records`.

Done once for each version of the state or of the records, when it is released. A file that is there stays as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from schemas.control import HEADER, Forward, RulesetRecord, Tick, sign
from schemas.event import VERSION as EVENT_VERSION
from schemas.rule import (
    Rule,
    Ruleset,
    above,
    absence,
    below,
    count,
    error_rate,
    event,
    max_of,
    mean,
    min_of,
    performance_regression,
    rate,
    sum_of,
)
from streams.kernel.partition import VERSION as ENGINE_VERSION
from streams.notifier.state import VERSION as NOTIFIER_VERSION
from streams.partitioner import event_key, partition_of
from streams.runtime import staging
from streams.runtime.producer import BARRIER, Items
from streams.testing import START
from tests.golden.files import FOLDER, KEY, PARTITION, PARTITIONS, Kept, items_to_json, meaning_of, record_to_json
from tests.golden.folds import SOURCE, Engine, Notifier, table_of
from tests.golden.meaning import decoded

S: Final = 1_000_000
PART: Final = 40
WINDOW: Final[dict[str, Any]] = {"over": "4s", "every": "1s", "cooldown": "0s", "summary": "{value:g} of {service}"}
COOL: Final = {"cooldown": "15m"}
RULES: Final = (
    Rule(name="count", select=event.outcome == "tool_error", measure=count(), warning=above(3), critical=above(6), **WINDOW),
    Rule(name="rate", measure=rate(), warning=above(2), hold_for="1s", **WINDOW),
    Rule(name="ratio", condition=error_rate("*", 0.4, "3s", every="500ms", at_least=3), recover=below(0.2), cooldown="15m"),
    Rule(
        name="sum",
        measure=sum_of("req_bytes"),
        by=("tenant", "service", "tool"),
        warning=above(10_000),
        **WINDOW | {"cooldown": "15m"},
    ),
    Rule(name="mean", measure=mean("dur_us"), warning=above(20_000, at_least=2), keep_firing_for="1s", **WINDOW),
    Rule(name="min", measure=min_of(event.attributes["depth"]), warning=above(1.5), **WINDOW),
    Rule(name="max", measure=max_of(event.attributes["depth"]), warning=above(2.5), **WINDOW),
    Rule(
        name="slower",
        condition=performance_regression("dur_us", 1.5, "6s", current="2s", every="1s", at_least=2, by=("tenant", "service")),
    ),
    Rule(name="silent", condition=absence(("tenant", "service"), "4s", every="1s"), cooldown="0s"),
)
SERVICES: Final = [name for name in map("service-{}".format, range(40)) if partition_of("acme", name, PARTITIONS) == PARTITION][
    :3
]
ELSEWHERE: Final = next(name for name in map("other-{}".format, range(40)) if partition_of("acme", name, PARTITIONS) != PARTITION)


def event_records() -> list[Kept]:
    """A partition of the event topic: a ruleset, telemetry with failing and slow stretches, ticks, forwards, what is refused."""
    ruleset = Ruleset(rules=RULES)
    records: list[Kept] = []

    def add(at: int, key: bytes | None, value: bytes | None, *headers: tuple[str, bytes]) -> None:
        records.append(Kept(len(records), at // 1000, key, value, headers))

    def control(record: Any, value: bytes) -> tuple[str, bytes]:
        signed = record if isinstance(record, Tick) else sign(record, KEY, topic=SOURCE.topic, partition=PARTITION, value=value)
        return HEADER, signed.model_dump_json().encode()

    add(START, None, b"", control(RulesetRecord(id=ruleset.id, seq=1), b""))
    for number in range(240):
        at = START + number * S // 10
        service = SERVICES[number % 3]
        fails = service == SERVICES[0] and number // 60 % 2 == 1
        slow = service == SERVICES[1] and number > 120
        said = {
            "v": EVENT_VERSION, "ts": at - number % 7 * 50_000, "kind": "operation", "tenant": "acme", "service": service,
            "tool": ("read", "write")[number % 2], "outcome": "tool_error" if fails else "ok", "weight": 1 + number % 2,
            "dur_us": 50_000 + number if slow else 5_000 + number, "req_bytes": number * 10,
            "attributes": {"depth": number % 5 / 2, "region": "eu"},
        }  # fmt: skip
        if service == SERVICES[2] and number > 150:
            add(at, None, b"", control(Tick(), b""))
        elif number % 31 == 0:
            add(at, None, text(said), control(Forward(partition=0, offset=number, index=0), text(said)))
        elif number % 17 == 0:
            add(at, event_key("acme", service), text([said, said]))
        else:
            add(at, event_key("acme", service), text(said))
    for value in (b"{", text({"kind": "operation"}), text(said | {"v": EVENT_VERSION + 1}), text(said | {"service": ELSEWHERE})):
        add(START + 24 * S, b"k", value)
    for number in range(25, 40):
        add(START + number * S, None, b"", control(Tick(), b""))
    return records


def text(document: Any) -> bytes:
    """A document as JSON."""
    return json.dumps(document, separators=(",", ":")).encode()


def engine_file() -> dict[str, Any]:
    """Half the records, saved plainly and then as a staged checkpoint that was not completed; and what the rest leads to."""
    ruleset, records = Ruleset(rules=RULES), event_records()
    fold = Engine(ruleset, {})
    appended: list[tuple[bytes, bytes | None]] = [(BARRIER, b"1")]
    appended += fold.fold(records[:60])
    staged = fold.fold(records[60:150])
    appended += parts_of(staged)
    table = dict(fold.table)
    transitions = fold.transitions
    fold.transitions = []
    fold.fold(records[150:])
    return {
        "ruleset": [rule.document() for rule in ruleset.rules],
        "ruleset_id": ruleset.id,
        "records": [record_to_json(record) for record in records],
        "saved": [60, 150],
        "changelog": items_to_json(appended),
        "table": meaning_of(table),
        "transitions_before": transitions,
        "transitions_after": fold.transitions,
        "sent": fold.sent,
        "table_after": meaning_of(fold.table),
    }


def parts_of(items: Items) -> list[tuple[bytes, bytes | None]]:
    """A checkpoint in parts, and the record that makes them count, as one that is too large for a batch begins."""
    runs = [items[at : at + PART] for at in range(0, len(items), PART)]
    parts = [(staging._PART % number, msgspec.msgpack.encode(run)) for number, run in enumerate(runs)]
    return [*parts, (staging.COMMIT, b"%d" % len(runs))]


def transition_records(transitions: Iterable[str]) -> list[Kept]:
    """Records of the topic of transitions."""
    return [Kept(at, START // 1000, b"acme", each.encode()) for at, each in enumerate(transitions)]


async def notifier_file(engine: dict[str, Any]) -> dict[str, Any]:
    """The transitions of the engine's file: some of them decided and saved, some decided and not saved, and the rest."""
    records = transition_records([*engine["transitions_before"], *engine["transitions_after"]])
    fold = Notifier({}, START + 20 * S)
    half = 0
    while not fold.held:
        half += 1
        await fold.fold(records[half - 1 : half])
    most = half + 6
    await fold.save()
    await fold.fold(records[half:most])
    table, changelog, before = dict(fold.table), list(fold.appended), list(fold.sent)
    again = Notifier(table, START + 30 * S)
    await again.fold(records[half:])
    await again.wake(START + 1_000 * S)
    await again.save()
    return {
        "records": [record_to_json(record) for record in records],
        "decided": [half, most],
        "changelog": items_to_json(changelog),
        "table": meaning_of(table_of(changelog)),
        "sent_before": before,
        "sent_after": again.sent,
        "table_after": meaning_of(again.table),
    }


def records_file(engine: dict[str, Any], notifier: dict[str, Any]) -> list[dict[str, Any]]:
    """A record of every kind, and what it decodes to."""
    ruleset = Ruleset(rules=RULES)
    kinds: dict[str, dict[str, Any]] = {}

    def take(name: str, topic: str, record: dict[str, Any]) -> None:
        kinds.setdefault(name, {"kind": name, "topic": topic} | record)

    for record in engine["records"]:
        names = dict(record["headers"])
        value = record["value"]
        kind = json.loads(names[HEADER])["control"] if HEADER in names else "events" if value[:1] == "[" else "event"
        take(kind, SOURCE.topic, record)
    for sent in engine["sent"]:
        reason = dict(sent["headers"]).get("dlq.reason")
        if reason:
            take(f"dead letter {reason}", sent["topic"], sent)
    for at, said in enumerate([*engine["transitions_before"], *engine["transitions_after"]]):
        take(f"transition {json.loads(said)['details']['kind']}", "mcp.transitions", notifier["records"][at])
    for sent in [*notifier["sent_before"], *notifier["sent_after"]]:
        take(f"{sent['topic']} {json.loads(sent['value'])['reason'] if sent['value'] else 'gone'}", sent["topic"], sent)
    manifest = {"id": ruleset.id, "rules": {rule.name: rule.revision for rule in ruleset.rules}}
    for name, document in (
        *((f"rule/{rule.revision}", rule.document()) for rule in ruleset.rules),
        (f"ruleset/{ruleset.id}", manifest),
        ("deploy/0000000001/0f", {"seq": 1, "id": ruleset.id, "based_on": None}),
        ("deployed/0000000001", {"seq": 1, "id": ruleset.id}),
    ):
        take(name, "mcp.rules", {"key": name, "value": text(document).decode(), "headers": []})
    return [record | {"decodes_to": decoded(record)} for record in kinds.values()]


async def main(names: list[str]) -> int:
    """Exit status 1 where a file is there already."""
    engine = engine_file()
    notifier = await notifier_file(engine)
    versions = {"engine": ENGINE_VERSION, "notifier": NOTIFIER_VERSION, "records": EVENT_VERSION}
    documents = {"engine": engine, "notifier": notifier, "records": records_file(engine, notifier)}
    for name in names:
        path = FOLDER / f"v{versions[name]}" / f"{name}.json"
        if path.exists():
            print(f"{path} is there already; what was released does not change", file=sys.stderr)
            return 1
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(documents[name], indent=1) + "\n", encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=("engine", "notifier", "records"))
    sys.exit(asyncio.run(main(parser.parse_args().names)))
