"""Which topics are wanted on how many brokers, and what counts as a difference."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.time import duration_text
from streams.commands.cluster import Found
from streams.commands.topic_check import Wanted, compare, wanted
from streams.settings import Settings
from streams.topics import ENGINE, NOTIFIER, PARTITIONS, TOPICS, Topic, changelog

WANTED = Wanted("mcp.events", 8, 3, {"cleanup.policy": "delete", "retention.ms": "1000"})
FOUND = Found(8, 3, WANTED.config | {"segment.ms": "5"}, {"segment.ms": "5"}, holds_data=True)


@pytest.mark.parametrize(("brokers", "copies", "in_sync"), [(1, 1, None), (2, 1, None), (3, 3, "2"), (9, 3, "2")])
def test_three_brokers_hold_three_replicas(brokers: int, copies: int, in_sync: str | None) -> None:
    topics = wanted(Settings(topic_prefix="a."), 4, brokers)
    assert {topic.replication for topic in topics} == {copies}
    assert {topic.config.get("min.insync.replicas") for topic in topics} == {in_sync}
    assert {topic.name: topic.partitions for topic in topics} == {
        "a.mcp.events": 4,
        "a.mcp.events.dlq": 4,
        "a.mcp.transitions": 4,
        "a.mcp.alerts": 4,
        "a.mcp.alerts.state": 4,
        "a.mcp.rules": 1,
        "tocsin-engine-state-changelog": 4,
        "tocsin-notifier-state-changelog": 4,
    }


def test_what_is_the_same_or_better_does_not_differ() -> None:
    for found in (FOUND, replace(FOUND, replication=5)):
        checked = compare(WANTED, found)
        assert (checked.remedies, checked.config, checked.unknown) == ((), {}, ())


def test_differences_are_told_apart() -> None:
    checked = compare(WANTED, Found(4, 1, {"retention.ms": "7"}, {}, holds_data=True))
    assert checked.config == {"retention.ms": ("7", "1000")}
    assert checked.unknown == ("cleanup.policy",)
    assert [remedy.split(":")[0] for remedy in checked.remedies] == [
        "mcp.events has 4 partitions, and 8 are needed",
        "mcp.events has 1 replicas instead of 3",
    ]


def test_the_table_in_the_documentation_is_the_one_in_the_code() -> None:
    rows = {}
    for line in Path("docs/topics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            name, *cells = [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            rows[name] = [cell.replace("\\|", "|") for cell in cells]
    topics = {topic.name: topic for topic in (*TOPICS, changelog("<group>", ENGINE), changelog("<group>", NOTIFIER))}
    assert rows == {name: _row(topic) for name, topic in topics.items()}


def _row(topic: Topic) -> list[str]:
    config = topic.config
    retention = duration_text(int(config["retention.ms"]) * 1000) if "retention.ms" in config else "-"
    size = f"{int(config['max.message.bytes']) / 1024:g} KiB"
    time = config.get("message.timestamp.type", "-")
    return [topic.key, topic.purpose, str(topic.partitions or PARTITIONS), config["cleanup.policy"], retention, size, time]
