"""Where a scenario plays: a broker, Redis, topics, rules, and workers that are processes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from streams.settings import Settings, variable
from tests.command import ROOT, TOCSIN, environment, tocsin
from tests.faults.load import Load, open_load
from tests.servers.kafka import KafkaServer
from tests.servers.redis import RedisServer

RULES: Final = Path(__file__).parent / "rules"
COOLDOWNS: Final = Path(__file__).parent / "cooldowns"
PARTITIONS: Final = 4
WITHIN: Final = 60.0


class FaultError(AssertionError):
    """A scenario could not be played: something that it waited for did not come."""


@dataclass
class Worker:
    """A worker as a process of its own, with its own folder. `command` runs it; `settings` come as its environment."""

    settings: Settings
    folder: Path
    command: Sequence[str] = (*TOCSIN, "run")
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    started: int = 0

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.folder / "worker.log"

    @property
    def data(self) -> Path:
        """Its local state."""
        return self.folder / "data"

    @property
    def is_running(self) -> bool:
        """Whether the process lives (it may be paused)."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the process; the log goes on."""
        self.folder.mkdir(exist_ok=True, parents=True)
        names = Settings.__dataclass_fields__
        variables = {variable(name): getattr(self.settings, name) for name in names if getattr(self.settings, name)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command),
                cwd=ROOT,
                env=environment(variables | {"TOCSIN_DATA_DIR": str(self.data)} | self.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started += 1

    def kill(self) -> None:
        """End it as a power cut would. One that has ended stays so."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def pause(self) -> None:
        """Freeze it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def show_stacks(self) -> None:
        """Let it log where it stands."""
        if self.is_running and self.process is not None:
            self.process.send_signal(signal.SIGUSR1)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def lose_disk(self) -> None:
        """Delete its local state."""
        shutil.rmtree(self.data, ignore_errors=True)

    async def stop(self) -> int:
        """Tell it to end; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> int:
        """The exit status, once it has ended."""
        await until(lambda: not self.is_running, f"{self.log} to end")
        assert self.process is not None
        return int(self.process.returncode)

    async def ready(self, role: str = "engine", within: float = WITHIN) -> None:
        """Wait until this start has opened its partitions."""
        said = f"{role}: ready"
        began = self.log.read_text(errors="replace").count(said) if self.log.exists() else 0
        await until(lambda: self.log.read_text(errors="replace").count(said) > began, f"{self.folder.name} to be ready", within)

    def said(self, text: str) -> bool:
        """Whether its log holds `text`."""
        return self.log.exists() and text in self.log.read_text(errors="replace")


@dataclass
class Stage:
    """One scenario's servers, settings, workers and seed."""

    kafka: KafkaServer
    redis: RedisServer
    settings: Settings
    folder: Path
    seed: int
    partitions: int = PARTITIONS
    workers: list[Worker] = field(default_factory=list)

    def prepare(self, *rules: Path) -> None:
        """Create the topics and deploy the rules, as a user does."""
        for arguments in (("topics", "--partitions", str(self.partitions)), ("deploy", *map(str, rules or (RULES,)))):
            self.tocsin(*arguments)

    def tocsin(self, *arguments: str) -> str:
        """Run a command; what it printed. Raises FaultError where it fails."""
        done = tocsin(self.environment(), *arguments)
        if done.returncode:
            raise FaultError(f"tocsin {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """The settings as environment variables."""
        names = Settings.__dataclass_fields__
        return {variable(name): getattr(self.settings, name) for name in names if getattr(self.settings, name)}

    def worker(self, name: str, *, only: str | None = None, command: Sequence[str] = (*TOCSIN, "run"), **settings: str) -> Worker:
        """A worker that is not started yet. `settings` are over those of the stage."""
        options = ("--only", only) if only else ()
        worker = Worker(replace(self.settings, **settings), self.folder / name, (*command, *options))
        self.workers.append(worker)
        return worker

    def breaking(self, command: Sequence[str], only: str, name: str, breaks: Mapping[str, str]) -> Worker:
        """A worker, always of the same instance and folder, that breaks as `breaks` says: see tests/faults/breaking_worker.py."""
        worker = self.worker("a", only=only, command=command, instance="a")
        worker.variables |= {**breaks, "BREAK_LOG": str(self.break_log(name))}
        return worker

    def break_log(self, name: str) -> Path:
        """Where the breaking worker `name` leaves a line when it breaks."""
        return self.folder / f"break-{name}.log"

    @contextlib.asynccontextmanager
    async def load(self, seed: int | None = None) -> AsyncIterator[Load]:
        """Telemetry for the event topic."""
        async with open_load(self.settings, self.seed if seed is None else seed, self.partitions) as load:
            yield load


async def until(condition: Callable[[], bool], what: str, within: float = WITHIN) -> None:
    """Wait for `condition`. Raises FaultError that says `what` was waited for."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise FaultError(f"waited {within:.0f} s for {what}")
        await asyncio.sleep(0.05)


class Servers:
    """A broker and a Redis that scenarios share unless they harm them, started when they are first needed."""

    def __init__(self, folder: Path, kafka: KafkaServer | None = None, redis: RedisServer | None = None) -> None:
        self._folder, self._kafka, self._redis = folder, kafka, redis

    @property
    def kafka(self) -> KafkaServer:
        """The shared broker."""
        if self._kafka is None:
            self._kafka = KafkaServer(self._folder / "kafka")
            self._kafka.start()
        return self._kafka

    @property
    def redis(self) -> RedisServer:
        """The shared Redis."""
        if self._redis is None:
            self._redis = RedisServer(self._folder / "redis")
            self._redis.start()
        return self._redis


@contextlib.contextmanager
def open_stage(
    servers: Servers,
    folder: Path,
    seed: int,
    *,
    own_kafka: bool = False,
    own_redis: bool = False,
    partitions: int = PARTITIONS,
    **settings: str,
) -> Iterator[Stage]:
    """A stage in `folder`, which need not exist. Its processes have ended when it is left, whatever happened."""
    folder.mkdir(parents=True, exist_ok=True)
    kafka = KafkaServer(folder / "kafka") if own_kafka else servers.kafka
    redis = RedisServer(folder / "redis") if own_redis else servers.redis
    own = f"faults-{uuid.uuid4().hex[:8]}"
    stage: Stage | None = None
    try:
        for server in [kafka] * own_kafka + [redis] * own_redis:
            server.start()
        found = Settings.from_environment(
            {
                "TOCSIN_BOOTSTRAP_SERVERS": kafka.bootstrap,
                "TOCSIN_REDIS_URL": redis.url,
                "TOCSIN_DATA_DIR": str(folder / "data"),
                "TOCSIN_GROUP": own,
                "TOCSIN_TOPIC_PREFIX": f"{own}.",
                "TOCSIN_METRICS_PORT": "0",
                "TOCSIN_SESSION_TIMEOUT": "6",
            }
        )
        stage = Stage(kafka, redis, replace(found, **settings), folder, seed, partitions)
        yield stage
    finally:
        for worker in stage.workers if stage is not None else ():
            if worker.is_running:
                worker.resume()
                worker.kill()
        for server in [kafka] * own_kafka + [redis] * own_redis:
            server.kill()
