"""The demo from beginning to end."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.alert import Alert
from streams.consumer import KafkaConsumer
from streams.demo import traffic
from streams.demo.processes import (
    HOST,
    DemoError,
    Processes,
    broker_command,
    fetch,
    free_port,
    redis_command,
    tocsin_command,
    until_listening,
    until_ready,
)  # fmt: skip
from streams.demo.show import Row, Seen, Show
from streams.topics import ALERTS

PARTITIONS: Final = 4
CALM: Final = 8.0
FIRE_SECONDS: Final = 25.0
RESOLVE_SECONDS: Final = 25.0
RULES: Final = Path(__file__).parent / "rules"
WATCH: Final = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a server, what undoes it, and the alert that must fire and resolve."""

    name: str
    rule: str
    source: str
    inject: Callable[[], Awaitable[None]]
    heal: Callable[[], Awaitable[None]]


class Alerts:
    """An independent consumer of `mcp.alerts`."""

    def __init__(self, bootstrap: str, show: Show) -> None:
        self._bootstrap, self._show = bootstrap, show
        self.seen: list[Seen] = []
        self._arrived = asyncio.Condition()

    async def run(self) -> None:
        """Read until cancelled."""
        consumer = KafkaConsumer(
            ALERTS.name,
            bootstrap_servers=self._bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
        )
        try:
            await consumer.start()
            async for record in consumer:
                now = time.time_ns() // 1000
                alert = Alert.model_validate_json(record.value)
                seen = Seen(alert, now / 1e6, (now - int(alert.details["append_time"])) / 1e6)
                self._show.alert(seen)
                async with self._arrived:
                    self.seen.append(seen)
                    self._arrived.notify_all()
        finally:
            await consumer.stop()

    def find(self, fault: Fault, status: str, since: int) -> Seen | None:
        """The first alert of a fault in that status, among those from number `since` on."""
        wanted = (fault.rule, fault.source, status)
        return next(
            (seen for seen in self.seen[since:] if (seen.alert.rule, seen.alert.source, seen.alert.status) == wanted), None
        )

    async def wait_for(self, fault: Fault, status: str, since: int, seconds: float) -> Seen | None:
        """The same, once it arrives; None if it does not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._arrived:
                await self._arrived.wait_for(lambda: self.find(fault, status, since) is not None)
        return self.find(fault, status, since)


def run_demo(*, stay: bool) -> int:
    """Run the demo. Returns 0 if every expected alert fired and resolved, else 1."""
    folder = Path(tempfile.mkdtemp(prefix="tocsin-demo-"))
    show, processes = Show(), Processes(folder)
    keep_logs = True
    try:
        status = asyncio.run(_Demo(folder, show, processes, stay=stay).run())
    except DemoError as error:
        show.console.print(f"the demo cannot go on: {error}", style="bold red")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        keep_logs = False
        show.console.print("ended")
        return 0 if stay else 130
    else:
        keep_logs = status != 0
        return status
    finally:
        with _undisturbed():
            processes.stop()
            if keep_logs:
                show.console.print(f"logs: {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore what would end the demo before its children: a second Ctrl-C is pressed easily."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Demo:
    def __init__(self, folder: Path, show: Show, processes: Processes, *, stay: bool) -> None:
        self._folder, self._show, self._processes, self._stay = folder, show, processes, stay
        self._control = folder / "files.json"
        self._token = secrets.token_urlsafe(16)
        self._broker, self._redis, self._metrics, self._vault = free_port(), free_port(), free_port(), free_port()
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            "TOCSIN_BOOTSTRAP_SERVERS": f"{HOST}:{self._broker}",
            "TOCSIN_REDIS_URL": f"redis://{HOST}:{self._redis}/0",
            "TOCSIN_DATA_DIR": str(folder / "data"),
            "TOCSIN_METRICS_PORT": str(self._metrics),
            "TOCSIN_FENCING": "off",
        }

    async def run(self) -> int:
        if (this := asyncio.current_task()) is not None:
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    asyncio.get_running_loop().add_signal_handler(number, this.cancel)
        self._say("starting a broker (in memory, without an idempotent producer), Redis and a worker")
        await self._start_servers()
        alerts = Alerts(f"{HOST}:{self._broker}", self._show)
        self._tell_files()
        with (self._folder / "mcp-servers.log").open("w", encoding="utf-8") as log:
            time_calls, files_calls = self._stdio_calls(log)
            vault_calls = traffic.Calls(traffic.http_server(self._vault, self._token), [("get_secret", {"name": "door"})])
            calls = {"time": time_calls, "files": files_calls, "vault": vault_calls}
            tasks = [
                asyncio.ensure_future(work)
                for work in (alerts.run(), self._watch(), *(each.run() for each in calls.values()), self._play(alerts, calls))
            ]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                results = [task.result() for task in tasks if task in done]  # what failed beside the play comes first
                return int(results[-1] or 0)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    # --- the stage --------------------------------------------------------------------------------------------------

    async def _start_servers(self) -> None:
        processes = self._processes
        broker = processes.start("broker", broker_command(self._broker))
        redis = processes.start("redis", redis_command(self._redis))
        await until_listening("broker", broker, self._broker, processes)
        await until_listening("redis", redis, self._redis, processes)
        await self._tocsin("topics", "--partitions", str(PARTITIONS))
        await self._tocsin("deploy", str(RULES))
        worker = processes.start("worker", tocsin_command("run"), self._environment)
        await until_ready("worker", worker, self._metrics, processes)
        command = [*tocsin_command()[:2], "streams.demo.servers.vault", str(self._vault), self._token]
        vault = processes.start("vault", command, self._environment)
        await until_listening("vault", vault, self._vault, processes)
        self._started = {"broker": broker, "redis": redis, "worker": worker, "vault": vault}

    async def _watch(self) -> None:
        """Raise DemoError once a process that no fault ends has ended."""
        while True:
            for name, child in self._started.items():
                if child.poll() is not None:
                    raise DemoError(f"{name} ended with status {child.returncode}:\n{self._processes.said(name)}")
            await asyncio.sleep(WATCH)

    async def _tocsin(self, *arguments: str) -> None:
        name = arguments[0]
        child = self._processes.start(name, tocsin_command(*arguments), self._environment)
        await asyncio.get_running_loop().run_in_executor(None, child.wait)
        if child.returncode:
            raise DemoError(f"tocsin {' '.join(arguments)} ended with status {child.returncode}:\n{self._processes.said(name)}")

    def _stdio_calls(self, log: Any) -> tuple[traffic.Calls, traffic.Calls]:
        time_server = traffic.stdio_server(
            "mcp_server_time", "--local-timezone", "UTC", service="time", environment=self._environment, log=log
        )
        files_server = traffic.stdio_server(
            "streams.demo.servers.files", str(self._control), service="files", environment=self._environment, log=log
        )
        return (
            traffic.Calls(time_server, [("get_current_time", {"timezone": "Europe/Zurich"})]),
            traffic.Calls(files_server, [("read_file", {"path": "notes.txt"}), ("search", {"query": "tocsin"})]),
        )

    def _tell_files(self, *, fail: bool = False, delay: float = 0) -> None:
        fresh = self._control.with_suffix(".new")
        fresh.write_text(json.dumps({"fail": fail, "delay": delay}), encoding="utf-8")
        fresh.replace(self._control)

    # --- the play ---------------------------------------------------------------------------------------------------

    async def _play(self, alerts: Alerts, calls: dict[str, traffic.Calls]) -> int:
        self._say("clients call three MCP servers: time and files over stdio, vault over streamable HTTP with a bearer token")
        await asyncio.sleep(CALM)
        if silent := [name for name, each in calls.items() if not each.made]:
            raise DemoError(f"no call was answered by {', '.join(silent)}:\n{self._processes.said('mcp-servers')}")
        rows = [await self._go_through(fault, alerts) for fault in self._faults(calls["time"])]
        status = self._conclude(rows, alerts)
        if self._stay:
            self._say(f"staying: broker {HOST}:{self._broker}, metrics http://{HOST}:{self._metrics}/metrics; Ctrl-C ends")
            await asyncio.Event().wait()
        return status

    def _faults(self, time_calls: traffic.Calls) -> list[Fault]:
        knocking = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def fail() -> None:
            self._tell_files(fail=True)

        async def slow() -> None:
            self._tell_files(delay=0.6)

        async def mend() -> None:
            self._tell_files()

        async def knock() -> None:
            knocking.set()
            tasks.append(asyncio.create_task(traffic.knock(self._vault, lambda: not knocking.is_set())))

        async def leave() -> None:
            knocking.clear()
            await asyncio.gather(*tasks)

        async def kill() -> None:
            time_calls.alive.clear()
            traffic.kill_server("mcp_server_time")

        async def revive() -> None:
            time_calls.alive.set()

        return [
            Fault("a tool that fails (read_file on 'files')", "failing-tool", "files", fail, mend),
            Fault("a tool that becomes slow (search on 'files')", "slow-tool", "files", slow, mend),
            Fault("calls without authorisation (on 'vault')", "calls-without-token", "vault", knock, leave),
            Fault("a server that dies ('time', killed)", "dead-server", "time", kill, revive),
        ]

    async def _go_through(self, fault: Fault, alerts: Alerts) -> Row:
        since = len(alerts.seen)
        self._say(f"FAULT     {fault.name}", "bold")
        await fault.inject()
        fired = await alerts.wait_for(fault, "firing", since, FIRE_SECONDS)
        await fault.heal()
        if fired is None:
            self._say(f"no alert within {FIRE_SECONDS:.0f} s; healed", "bold red")
            return fault.name, None, None
        self._say("HEALED", "bold")
        return fault.name, fired, await alerts.wait_for(fault, "resolved", since, RESOLVE_SECONDS)

    def _conclude(self, rows: list[Row], alerts: Alerts) -> int:
        self._show.table(rows)
        missing = [name for name, fired, resolved in rows if fired is None or resolved is None]
        took = sorted(seen.after for seen in alerts.seen)
        p50, p99 = (
            f"{took[min(len(took) - 1, int(len(took) * part))] * 1000:.0f} ms" if took else "none" for part in (0.5, 0.99)
        )
        if missing:
            self._say(f"MISSING   {'; '.join(missing)}", "bold red")
        events = _metric(fetch(self._metrics, "/metrics") or "", "tocsin_events_total")
        self._show.console.print(f"{events} events, {len(alerts.seen)} alerts, event to alert p50 {p50}, p99 {p99}")
        return 1 if missing else 0

    def _say(self, text: str, style: str = "") -> None:
        self._show.say(text, style)


def _metric(text: str, name: str) -> int:
    return int(sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)))
