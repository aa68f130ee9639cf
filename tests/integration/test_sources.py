"""Telemetry of real MCP servers on a real broker: an unmodified server over stdio, and refusals over HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from schemas.event import Event, parse_event
from streams.demo.traffic import http_server
from streams.settings import Settings
from streams.sources.outlet import Outlet
from streams.topic_reader import TopicReader
from streams.topics import EVENTS
from tests.command import environment as with_settings
from tests.commands.running import environment
from tests.conftest import Topics
from tests.servers.kafka import KafkaServer
from tests.servers.process import free_port

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
TOKEN, SENTINEL = "token-sentinel-51c2", "sentinel"


async def published(settings: Settings, enough: Callable[[list[Event]], bool], within: float = 30) -> list[Event]:
    """The events of the topic, once there are enough; each is one that the contract accepts, without any value."""
    deadline = time.monotonic() + within
    while True:
        async with TopicReader(settings.kafka_client(), settings.topic_prefix + EVENTS.name) as reader:
            records = [record async for record in reader.to_end()]
        values = [record.value or b"" for record in records]
        assert not [value for value in values if SENTINEL.encode() in value]
        events = [parse_event(value) for value in values]
        if enough(events):
            assert {record.key for record in records} == {f"{each.tenant}|{each.service}".encode() for each in events}
            assert len({record.partition for record in records}) == 1
            return events
        assert time.monotonic() < deadline, events
        await asyncio.sleep(0.2)


def has(*actions: str) -> Callable[[list[Event]], bool]:
    return lambda events: {each.action for each in events} >= set(actions)


async def test_an_unmodified_server_over_stdio(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    await topics.create(changelogs=False)
    arguments = ["--service", "time", "--tenant", "t1", "--heartbeat", "0.3", "--", "mcp_server_time", "--local-timezone", "UTC"]
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "streams.sources.instrument", *arguments], cwd=ROOT, env=environment(settings)
    )
    with (tmp_path / "errors.log").open("w") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            answer = await client.call_tool("get_current_time", {"timezone": "Europe/Zurich"})
            assert "Europe/Zurich" in str(answer.content)
            assert (await client.call_tool("get_current_time", {"timezone": f"Europe/{SENTINEL}"})).is_error
            assert (await client.call_tool("get_current_time", {SENTINEL: 1})).is_error
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool(SENTINEL, {})
            await published(settings, has("heartbeat"))
    events = await published(settings, has("open", "heartbeat", "close"))
    assert {(each.tenant, each.service, each.src, each.side) for each in events} == {("t1", "time", "sdk", "server")}
    assert len({each.conn for each in events}) == 1
    calls = [each for each in events if each.method == "tools/call"]
    assert [(each.tool, each.outcome, each.transport) for each in calls] == [
        ("get_current_time", "ok", "pipe"), ("get_current_time", "tool_error", "pipe"),
        ("get_current_time", "caller_error", "pipe"), ("_OTHER", "caller_error", "pipe"),
    ]  # fmt: skip
    assert all(each.dur_us and each.req_bytes and each.res_bytes for each in calls[:3])
    assert (calls[3].unknown_target, calls[3].rpc_code, calls[3].res_bytes) == (True, "-32602", None)
    assert (events[0].action, events[-1].action) == ("open", "close")
    assert [each.ts for each in events] == sorted(each.ts for each in events)


@dataclass
class Vault:
    port: int
    process: subprocess.Popen[bytes]


@pytest.fixture
async def vault(settings: Settings, topics: Topics) -> AsyncIterator[Vault]:
    await topics.create(changelogs=False)
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-m", "streams.demo.servers.vault", str(port), TOKEN], cwd=ROOT, env=with_settings(environment(settings))
    )
    deadline = time.monotonic() + 30
    while not _listens(port):
        assert process.poll() is None
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    yield Vault(port, process)
    process.kill()
    process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


BODY = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "probe", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ACCEPT = {"Accept": "application/json, text/event-stream"}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call"}


async def test_refusals_over_http(settings: Settings, vault: Vault) -> None:
    probes: list[tuple[dict[str, str], dict[str, Any], int, tuple[str, str]]] = [
        ({}, BODY, 401, ("authn", "missing_token")),
        ({"Authorization": f"Bearer other-{SENTINEL}"}, BODY, 401, ("authn", "invalid_token")),
        (BEARER | {"Origin": f"http://{SENTINEL}.example"}, BODY, 403, ("violation", "origin")),
        (BEARER | {"Host": f"{SENTINEL}.example"}, BODY, 421, ("violation", "host")),
        (BEARER | MODERN, BODY | {"params": {"_meta": META}}, 400, ("violation", "header_mismatch")),
    ]
    async with httpx2.AsyncClient(headers=ACCEPT, timeout=10) as http:
        for headers, body, status, _ in probes:
            answer = await http.post(f"http://127.0.0.1:{vault.port}/mcp", json=body, headers=headers)
            assert answer.status_code == status, answer.text
    async with Client(http_server(vault.port, TOKEN)()) as client:
        assert "****" in str(await client.call_tool("get_secret", {"name": SENTINEL}))
    vault.process.send_signal(signal.SIGTERM)
    events = await published(settings, has("close"))
    refused = [each for each in events if each.kind == "security"]
    assert [(each.action, each.reason) for each in refused] == [said for *_, said in probes]
    assert [each.http_status for each in refused] == [status for _, _, status, _ in probes]
    assert {(each.result, each.service, each.app_proto) for each in refused} == {("fail", "vault", "http")}
    assert len({each.addr_hash for each in refused}) == 1
    (call,) = [each for each in events if each.method == "tools/call"]
    assert (call.tool, call.outcome, call.transport, call.app_proto) == ("get_secret", "ok", "tcp", "http")
    assert vault.process.wait(10) == 128 + signal.SIGTERM


async def test_outages_of_the_broker_lose_nothing_uncounted(own_kafka: KafkaServer) -> None:
    settings = Settings.from_environment({"TOCSIN_BOOTSTRAP_SERVERS": own_kafka.bootstrap, "TOCSIN_TOPIC_PREFIX": "outage."})
    admin = AIOKafkaAdminClient(**settings.kafka_client())
    await admin.start()
    await admin.create_topics([NewTopic(settings.topic_prefix + EVENTS.name, 1, 1)])
    await admin.close()
    outlet = Outlet(settings, service="files", size=200)
    offered = 0

    def offer(number: int) -> None:
        nonlocal offered
        for _ in range(number):
            started = time.perf_counter()
            outlet.offer({"kind": "operation", "ts": time.time_ns() // 1000, "dur_us": offered})
            offered += 1
            assert time.perf_counter() - started < 1

    offer(50)
    await published(settings, lambda events: len(events) == 50)
    own_kafka.kill()
    offer(1_000)
    assert outlet.dropped >= 300  # 200 fit, at most 500 are under way
    own_kafka.start()
    offer(50)
    await asyncio.to_thread(outlet.close, 60)
    events = await published(settings, lambda events: len(events) > 50)
    found = Counter(each.dur_us for each in events if each.kind == "operation")
    lost = sum(each.dropped_events or 0 for each in events if each.kind == "perf")
    assert max(found.values()) == 1
    assert lost == outlet.dropped
    assert offered - len(found) <= lost <= offered - len(found) + 500  # what is not acknowledged may have arrived
