"""`tocsin publish` on a real broker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from streams.partitioner import partition_of
from streams.settings import Settings
from tests.command import ROOT, TOCSIN
from tests.command import environment as isolated
from tests.commands.running import environment, event, lines, module, records, tocsin

pytestmark = pytest.mark.integration


def test_published_events_are_keyed_and_refused_lines_counted(own: Settings) -> None:
    good = [event(service=f"s{number}") for number in range(20)]
    bad = [b"{", event(kind="none"), {"ts": 1_767_225_600_000_000}, [event(), event(value="x")], b"x" * 2_000_000] + [b"7"] * 8
    result = tocsin(own, "publish", stdin=lines(*good[:10], *bad, good[10:]))
    assert result.exit_code == 1
    assert "20 events published; 13 lines refused" in result.stderr
    assert "line 12: kind: " in result.stderr
    assert "line 13: kind: is missing (and 1 more)" in result.stderr
    assert "line 14: value: " in result.stderr
    assert "line 15: is longer than" in result.stderr
    assert "line 20: " in result.stderr
    assert "line 21: " not in result.stderr
    found = {json.loads(record.value or b"")["service"]: record for record in records(own, "mcp.events")}
    assert len(found) == 20
    for service, record in found.items():
        assert record.key == f"default|{service}".encode()
        assert record.partition == partition_of("default", service, 3)


def test_old_events_are_told_and_moved(own: Settings, tmp_path: Path) -> None:
    deployed = tocsin(own, "deploy", module(tmp_path, one="10m"))
    assert deployed.exit_code == 0, deployed.output
    now = time.time_ns() // 1000
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(event(ts=now - 700_000_000), event(ts=now - 500_000_000, service="mail")))
    result = tocsin(own, "publish", str(file))
    assert result.exit_code == 0, result.output
    assert "warning: events older than 10m, the widest window" in result.stderr
    assert "2 events published, 1 of them older" in result.stderr
    moved = tocsin(own, "publish", str(file), "--shift-to-now")
    assert "older" not in moved.stderr
    values = [json.loads(record.value) for record in records(own, "mcp.events") if record.value]
    times = sorted(value["ts"] for value in values)[2:]
    assert times[1] - times[0] == 200_000_000
    assert 0 <= times[1] - now < 60_000_000


def test_the_rate_is_kept(own: Settings) -> None:
    result = tocsin(own, "publish", "--rate", "20", stdin=lines(*[event()] * 20))
    assert result.exit_code == 0, result.output
    appended = [record.timestamp for record in records(own, "mcp.events")]
    assert len(appended) == 20
    assert 900 <= max(appended) - min(appended) < 5_000


def test_one_that_is_stopped_says_where_to_go_on(own: Settings, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(*[event(service=f"s{number}") for number in range(5_000)]))
    command = [*TOCSIN, "publish", str(file), "--rate", "50"]
    publishing = subprocess.Popen(command, cwd=ROOT, env=isolated(environment(own)), stderr=subprocess.PIPE, text=True)
    while len(records(own, "mcp.events")) < 20:
        assert publishing.poll() is None
    publishing.send_signal(signal.SIGINT)
    said = publishing.communicate(timeout=60)[1]
    found = re.search(r"stopped; everything before line (\d+) is dealt with", said)
    assert found, said
    there = {json.loads(record.value or b"")["service"] for record in records(own, "mcp.events")}
    assert {f"s{number}" for number in range(int(found[1]) - 1)} <= there
    assert len(there) - (int(found[1]) - 1) in (0, 1), "what was in flight may be there as well"


def test_publishing_without_topics_names_the_command(settings: Settings) -> None:
    result = tocsin(settings, "publish", stdin=lines(event()))
    assert result.exit_code == 1
    assert "`tocsin topics` creates it" in result.stderr
