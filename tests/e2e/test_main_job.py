"""The main job with foreign clients: kcat publishes to and consumes from real Kafka, with the worker as a process between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streams.settings import Settings
from streams.testing import Tick, load_examples
from tests.commands.running import environment
from tests.servers.process import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "rules"
SHOWN = ("server_error_rate", "tool_latency", "authn_failure_burst", "latency_regression", "server_absent")
"""The four kinds of the specification, and absence."""
BURSTS = """
from schemas.rule import Rule, above, count, event

held_then_told = Rule(
    name="held-then-told", select=event.service == "a", measure=count(), over="2s", every="500ms", warning=above(2),
    cooldown="12s", summary="{value:g} events of {service}",
)
held_and_over = Rule(
    name="held-and-over", select=event.service == "b", measure=count(), over="2s", every="500ms", warning=above(2),
    cooldown="10m", summary="{value:g} events of {service}",
)
"""


def now() -> int:
    return time.time_ns() // 1000


class Bench:
    """The commands and clients of one test."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.env = os.environ | environment(settings)

    def tocsin(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", *arguments],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def produce(self, events: list[dict[str, Any]], codec: str, *, keyed: bool) -> None:
        lines = "".join(
            (f"{event.get('tenant', 'default')}|{event['service']}\t" if keyed else "") + json.dumps(event) + "\n"
            for event in events
        )
        options = ["-K", "\t", "-X", "partitioner=murmur2_random"] if keyed else []
        command = [
            "kcat",
            "-P",
            "-b",
            self.settings.bootstrap_servers,
            "-t",
            f"{self.settings.topic_prefix}mcp.events",
            "-z",
            codec,
        ]
        subprocess.run([*command, *options], input=lines, text=True, timeout=60, check=True)

    def consume(self, topic: str) -> list[dict[str, Any]]:
        command = [
            "kcat",
            "-C",
            "-b",
            self.settings.bootstrap_servers,
            "-t",
            self.settings.topic_prefix + topic,
            "-o",
            "beginning",
            "-e",
            "-q",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait(self, topic: str, holds: Callable[[list[dict[str, Any]]], bool], seconds: float) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while not holds(found := self.consume(topic)):
            said = Counter((record["rule"], record["status"], record["reason"]) for record in found)
            assert time.monotonic() < deadline, f"{topic} holds {dict(said)}"
            time.sleep(0.2)
        return found


@pytest.fixture
def bench(settings: Settings, tmp_path: Path) -> Iterator[Bench]:
    port = free_port()
    bench = Bench(replace(settings, metrics_port=str(port)))
    (tmp_path / "bursts").mkdir()
    (tmp_path / "bursts" / "bursts.py").write_text(BURSTS)
    bench.tocsin("topics", "--partitions", "4")
    bench.tocsin("deploy", str(RULES), str(tmp_path / "bursts"))
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen([sys.executable, "-m", "streams.cli", "run"], cwd=ROOT, env=bench.env, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not is_ready(port):
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
            time.sleep(0.2)
        yield bench
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, (tmp_path / "worker.log").read_text()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def history() -> list[dict[str, Any]]:
    """The first example of each shown rule, each about a server of its own, all ending now."""
    events: list[dict[str, Any]] = []
    end = now() - 2_000_000
    for module in SHOWN:
        example = load_examples(RULES / f"{module}.examples.jsonl")[0]
        times = [step.at if isinstance(step, Tick) else step.ts for step in example.steps]
        lines = [step.model_dump(mode="json", exclude_unset=True) for step in example.steps if not isinstance(step, Tick)]
        events += [{**line, "ts": line["ts"] + end - max(times), "service": module} for line in lines]
    return sorted(events, key=lambda event: event["ts"])


def burst(service: str) -> list[dict[str, Any]]:
    return [{"ts": now(), "kind": "audit", "service": service} for _ in range(3)]


def test_every_kind_of_rule_fires_and_resolves_and_cooldowns_hold_back(bench: Bench) -> None:
    events = history()
    half = len(events) // 2
    bench.produce(events[:half], "lz4", keyed=True)
    bench.produce(events[half:], "zstd", keyed=True)
    bench.produce(burst("a") + burst("b"), "lz4", keyed=False)  # whoever needs no partitioner: these are forwarded
    wanted = {(module.replace("_", "-"), module, status) for module in SHOWN for status in ("firing", "resolved")}

    def told(alerts: list[dict[str, Any]], rule: str) -> list[tuple[str, str]]:
        told = sorted((alert for alert in alerts if alert["rule"] == rule), key=lambda alert: alert["decided_at"])
        return [(alert["status"], alert["reason"]) for alert in told]

    first = [("firing", "first_notification"), ("resolved", "resolved")]
    bench.wait("mcp.alerts", lambda found: wanted <= {(alert["rule"], alert["source"], alert["status"]) for alert in found}, 60)
    bench.wait("mcp.alerts", lambda found: told(found, "held-then-told") == told(found, "held-and-over") == first, 30)

    bench.produce(burst("a") + burst("b"), "zstd", keyed=False)
    bench.wait(
        "mcp.transitions",
        lambda found: all(("firing", "in_cooldown") in told(found, rule) for rule in ("held-then-told", "held-and-over")),
        20,
    )
    deadline = time.monotonic() + 30
    while ("firing", "cooldown_over") not in told(bench.consume("mcp.alerts"), "held-then-told"):
        assert time.monotonic() < deadline, "a firing that was held back was not dispatched when its cooldown ended"
        bench.produce(burst("a"), "lz4", keyed=True)  # it still fires
        time.sleep(0.3)
    bench.wait("mcp.transitions", lambda found: ("resolved", "ended_while_held") in told(found, "held-and-over"), 20)
    alerts = bench.wait("mcp.alerts", lambda found: len(told(found, "held-then-told")) == 4, 20)
    assert told(alerts, "held-then-told") == [*first, ("firing", "cooldown_over"), ("resolved", "resolved")]
    assert told(alerts, "held-and-over") == first
    assert len({alert["id"] for alert in alerts}) == len(alerts)
    decided = {record["id"] for record in bench.consume("mcp.transitions")}
    assert {alert["id"] for alert in alerts} <= decided
    firing = json.loads("[" + ",".join(bench.tocsin("alerts", "--json").splitlines()) + "]")
    assert not {(alert["rule"], alert["source"]) for alert in firing} & {(rule, source) for rule, source, _ in wanted}
