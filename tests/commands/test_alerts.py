"""`tocsin alerts` on a real broker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from streams.settings import Settings
from streams.topic_reader import TopicReader
from tests.commands.running import environment, send, tocsin
from tests.commands.test_schema import alert

pytestmark = pytest.mark.integration


def put_alerts(settings: Settings, topic: str, *alerts: Any) -> None:
    send(settings, topic, *[(each.key, each.model_dump_json().encode()) for each in alerts])


def test_what_fires_is_shown_the_worst_first(own: Settings) -> None:
    assert tocsin(own, "alerts").stdout == "nothing is firing\n"
    put_alerts(
        own,
        "mcp.alerts.state",
        alert(dedup_key="1", severity="warning", source="mail", message="red \x1b[31m \u202e text"),
        alert(dedup_key="2", severity="critical", rule="broken"),
        alert(dedup_key="3", rule="over"),
        alert(dedup_key="4", rule="held", reason="in_cooldown", details={"held_until": 1_767_225_600_000_000}),
    )
    send(own, "mcp.alerts.state", ("default|3", None), ("foreign", b"{}"))
    result = tocsin(own, "alerts")
    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    assert [row.split()[1] for row in rows[1:4]] == ["critical", "high", "warning"]
    assert "held until 2026-01-01T00:00:00.000000Z" in rows[2]
    assert r"red \x1b[31m \u202e text" in rows[3]
    assert rows[-1] == "3 firing"
    assert "not an alert: partition" in result.stderr
    assert tocsin(own, "alerts", "--limit", "1").stdout.endswith("3 firing, 2 of them not shown (--limit)\n")
    found = [json.loads(row) for row in tocsin(own, "alerts", "--json").stdout.splitlines()]
    assert [each["dedup_key"] for each in found] == ["2", "4", "1"]


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_alerts_are_followed_live(own: Settings, form: list[str]) -> None:
    put_alerts(own, "mcp.alerts", alert(message="before"))
    code = "from streams.cli import main; main()"
    command = [sys.executable, "-c", code, "alerts", "--follow", "--limit", "2", *form]
    with subprocess.Popen(
        command, env=os.environ | environment(own), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("following ")
        deadline = time.monotonic() + 30
        sent = 0
        while process.poll() is None and time.monotonic() < deadline:
            put_alerts(own, "mcp.alerts", alert(message=f"after {sent}"))  # until it has found the end of the topic
            sent += 1
            time.sleep(0.1)
        if process.poll() is None:
            process.kill()
        out = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert len(out) == 2
    assert "before" not in "".join(out)
    if form:
        assert json.loads(out[0])["message"].startswith("after ")
    else:
        assert out[0].startswith("2026-01-01T00:00:00.000000Z high     slow files: after ")


def test_the_reader_takes_up_where_it_ended(own: Settings) -> None:
    async def read() -> list[list[bytes | None]]:
        async with TopicReader(own.kafka_client(), own.topic_prefix + "mcp.alerts") as reader:
            taken = []
            async with AIOKafkaProducer(**own.kafka_client()) as producer:
                for value in (b"1", b"2"):
                    taken.append([record.value async for record in reader.to_end()])
                    await producer.send_and_wait(own.topic_prefix + "mcp.alerts", value, partition=0)
            return [*taken, [record.value async for record in reader.to_end()]]

    assert asyncio.run(read()) == [[], [b"1"], [b"2"]]
