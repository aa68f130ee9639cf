"""`tocsin topics` on a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.commands.cluster import Cluster
from streams.settings import Settings
from streams.topics import TOPICS
from tests.commands.running import delete_topics, module, send, tocsin, with_admin

pytestmark = pytest.mark.integration


def config(settings: Settings, topic: str) -> dict[str, str]:
    async def read() -> dict[str, str]:
        async with Cluster(settings.kafka_client()) as cluster:
            return dict((await cluster.find([settings.topic_prefix + topic]))[settings.topic_prefix + topic].config)

    return asyncio.run(read())


def configure(settings: Settings, topic: str, **changes: str) -> None:
    given = {name.replace("_", "."): value for name, value in changes.items()}
    resource = ConfigResource(ConfigResourceType.TOPIC, settings.topic_prefix + topic, given)
    asyncio.run(with_admin(settings, lambda admin: admin.alter_configs([resource])))


def test_topics_are_created_once_and_found_right_then(settings: Settings) -> None:
    first, second = tocsin(settings, "topics"), tocsin(settings, "topics")
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    states = [[row.split()[-1] for row in result.stdout.splitlines()[1 : len(TOPICS) + 3]] for result in (first, second)]
    assert states == [["created"] * (len(TOPICS) + 2), ["ok"] * (len(TOPICS) + 2)]
    assert config(settings, "mcp.events")["message.timestamp.type"] == "LogAppendTime"
    assert config(settings, "mcp.events")["retention.ms"] == "1209600000"
    asyncio.run(delete_topics(settings))


def test_the_next_step_is_named(own: Settings, tmp_path: Path) -> None:
    assert tocsin(own, "topics").stdout.endswith("next: tocsin deploy rules/\n")
    assert tocsin(own, "deploy", module(tmp_path, one="1m")).exit_code == 0
    assert tocsin(own, "topics").stdout.endswith("next: tocsin run\n")


def test_an_empty_topic_is_configured_anew_and_keeps_its_other_settings(own: Settings) -> None:
    configure(own, "mcp.transitions", retention_ms="7200000", retention_bytes="1000000")
    result = tocsin(own, "topics")
    assert result.exit_code == 0, result.output
    assert "mcp.transitions had cleanup.policy" not in result.stdout
    assert "retention.ms=7200000 instead of 1209600000" in result.stdout
    changed = config(own, "mcp.transitions")
    assert (changed["retention.ms"], changed["retention.bytes"]) == ("1209600000", "1000000")


def test_a_topic_with_data_is_changed_with_yes_only(own: Settings) -> None:
    configure(own, "mcp.alerts", retention_ms="7200000")
    send(own, "mcp.alerts", ("k", b"{}"))
    refused = tocsin(own, "topics")
    assert refused.exit_code == 1
    assert "it holds data, so give --yes to change it" in refused.stdout
    assert config(own, "mcp.alerts")["retention.ms"] == "7200000"
    assert tocsin(own, "topics", "--yes").exit_code == 0
    assert config(own, "mcp.alerts")["retention.ms"] == "1209600000"


def test_another_number_of_partitions_is_refused_with_the_remedy(own: Settings) -> None:
    result = tocsin(own, "topics", "--partitions", "4", "--yes")
    assert result.exit_code == 1
    assert "mcp.events has 3 partitions and keeps them" in result.stderr
    assert "TOCSIN_TOPIC_PREFIX" in result.stderr
    assert tocsin(own, "topics").exit_code == 0


def test_a_topic_with_too_few_partitions_is_reported(settings: Settings) -> None:
    names = [settings.topic_prefix + "mcp.transitions"]
    asyncio.run(with_admin(settings, lambda admin: admin.create_topics([NewTopic(name, 1, 1) for name in names])))
    result = tocsin(settings, "topics", "--partitions", "2")
    assert result.exit_code == 1
    assert f"{names[0]} has 1 partitions, and 2 are needed: delete it" in result.stdout
    asyncio.run(delete_topics(settings))
