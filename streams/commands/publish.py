"""`tocsin publish`: JSON lines to the event topic."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from typing import IO, Any, Final

import click
from aiokafka import AIOKafkaProducer
from rich.progress import Progress, SpinnerColumn, TextColumn

from schemas.measure import Regression
from schemas.rule import Rule
from schemas.time import MICROS, duration_text
from streams.commands.console import Failure, connected, examples, settings, stderr, visible
from streams.commands.event_lines import EventRecord, Line, RefusedLineError, lines_of, newest, records_of
from streams.ruleset_log import RulesetLog
from streams.settings import Settings
from streams.topic_reader import TopicReader
from streams.topics import EVENTS, RULES

SHOWN: Final = 10
IN_FLIGHT: Final = 5_000
NO_RULES: Final = 3_600 * MICROS
"""What counts as old where no ruleset says it."""
_EXAMPLE: Final = '{"ts":"2026-11-23T00:00:00Z","kind":"metric","service":"files","name":"depth","value":7}'


@click.command(
    "publish",
    epilog=examples(
        "tocsin publish events.jsonl",
        "my-exporter | tocsin publish",
        "tocsin publish yesterday.jsonl --shift-to-now --rate 500",
        f"echo '{_EXAMPLE}' | tocsin publish --shift-to-now",
    ),
)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--shift-to-now", is_flag=True, help="Move all times so that the newest event happens now (reads the input twice).")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most this many events per second.")
def command(file: IO[bytes], shift_to_now: bool, rate: float | None) -> None:
    """Publish the events of FILE, or of the standard input, to mcp.events.

    A line is a JSON object, or an array of them that is taken whole or not at all. ts, kind and service are required;
    `tocsin schema event` has the rest. A line that breaks the contract is refused, with its number, field and reason,
    and the others go on. Events are keyed tenant|service; a connection that fails in between makes no duplicates.

    Exit status: 0 everything was published, 1 lines were refused or the broker failed, 2 unusable settings.
    """
    configured = settings()
    if file.isatty():
        click.echo("reading events from the terminal, one per line; Ctrl-D ends", err=True)
    publishing = Publishing(rate)
    connected(configured, publishing.run(configured, file, shift_to_now=shift_to_now))
    if publishing.refused:
        raise Failure(f"{publishing.refused} lines were refused; the events of all others are published")


@dataclass(slots=True)
class Publishing:
    """One run, and what has become of its lines so far. `old` counts events that lie before the widest window."""

    rate: float | None
    sent: int = 0
    refused: int = 0
    old: int = 0
    _widest: int = NO_RULES
    _begun: float = field(default_factory=time.monotonic)
    _read: int = 0
    _waiting: deque[tuple[int, asyncio.Future[Any]]] = field(default_factory=deque)

    async def run(self, settings: Settings, source: IO[bytes], *, shift_to_now: bool) -> None:
        """Publish the lines of `source`."""
        self._widest = await widest_window(settings)
        with tempfile.TemporaryFile() as spool:
            shift = 0
            if shift_to_now:
                latest = await newest(source, spool)
                shift = 0 if latest is None else time.time_ns() // 1000 - latest
                source = spool
            producer = AIOKafkaProducer(
                **settings.kafka_client(),
                acks="all",
                enable_idempotence=settings.fencing == "on",
                compression_type="lz4",
                linger_ms=5,
                max_batch_size=1 << 18,
                max_request_size=int(EVENTS.config["max.message.bytes"]),
            )
            self._begun = time.monotonic()
            try:
                await producer.start()
                await self._lines(producer, settings.topic_prefix + EVENTS.name, source, shift)
            except asyncio.CancelledError:
                await producer.stop()
                click.echo(
                    f"stopped; everything before line {self.resume()} is dealt with: go on with `tail -n +{self.resume()}`",
                    err=True,
                )
                raise
            finally:
                await producer.stop()
                click.echo(self.summary(), err=True)

    async def _lines(self, producer: AIOKafkaProducer, topic: str, source: IO[bytes], shift: int) -> None:
        console = stderr()
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("")
            said = time.monotonic()
            async for line in lines_of(source):
                for record in self._records(line, shift, progress):
                    await self._send(producer, topic, record, line.number)
                self._read = line.number
                now = time.monotonic()
                if now - said > (0.2 if console.is_terminal else 10):
                    said = now
                    progress.update(task, description=self.summary())
                    if not console.is_terminal:
                        click.echo(self.summary(), err=True)
            while self._waiting:
                await self._taken()

    async def _taken(self) -> None:
        """Wait for the record that was sent first. It stays in line where this is stopped."""
        await asyncio.shield(self._waiting[0][1])
        self._waiting.popleft()

    def resume(self) -> int:
        """The first line of which not every record is known to be published."""
        open_lines = (line for line, sent in self._waiting if not sent.done() or sent.cancelled() or sent.exception())
        return min(open_lines, default=self._read + 1)

    def _records(self, line: Line, shift: int, progress: Progress) -> list[EventRecord]:
        now = time.time_ns() // 1000
        try:
            records = records_of(line, shift=shift, now=now)
        except RefusedLineError as error:
            self.refused += 1
            if self.refused <= SHOWN:
                progress.console.print(f"line {line.number}: {visible(str(error))[:300]}", soft_wrap=True)
            if self.refused == SHOWN + 1:
                progress.console.print("more lines are refused; they are counted")
            return []
        old = sum(record.ts < now - self._widest for record in records)
        if old and not self.old:
            progress.console.print(
                f"line {line.number}: warning: events older than {duration_text(self._widest)}, the widest window; "
                "next to newer ones they count as late. --shift-to-now moves them",
                soft_wrap=True,
            )
        self.old += old
        return records

    async def _send(self, producer: AIOKafkaProducer, topic: str, record: EventRecord, line: int) -> None:
        if self.rate:
            due = self._begun + (self.sent + len(self._waiting)) / self.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        while len(self._waiting) >= IN_FLIGHT or (self._waiting and self._waiting[0][1].done()):
            await self._taken()
        delivery = await producer.send(topic, record.value, key=record.key)
        delivery.add_done_callback(self._delivered)
        self._waiting.append((line, delivery))

    def _delivered(self, delivery: asyncio.Future[Any]) -> None:
        if not delivery.cancelled() and delivery.exception() is None:
            self.sent += 1

    def summary(self) -> str:
        """The counts, in a line."""
        seconds = max(time.monotonic() - self._begun, 0.001)
        old = f", {self.old} of them older than the widest window" if self.old else ""
        return f"{self.sent} events published{old}; {self.refused} lines refused; {self.sent / seconds:,.0f} events/s"


async def widest_window(settings: Settings) -> int:
    """How far the active rules look back, in microseconds. Raises MissingTopicError where a topic is missing."""
    log = RulesetLog()
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + RULES.name) as reader:
        reader.partitions_of(settings.topic_prefix + EVENTS.name)
        async for record in reader.to_end():
            log.fold(record)
    if log.current is None:
        click.echo(
            "note: no ruleset is deployed, so these events raise no alert; `tocsin deploy rules/` makes one active", err=True
        )
        return NO_RULES
    try:
        return max((_looks_back(rule) for rule in log.rules(log.current)), default=NO_RULES)
    except ValueError as error:
        reason = visible(str(error).splitlines()[0])
        click.echo(
            f"note: the active ruleset cannot be read ({reason}); events older than {duration_text(NO_RULES)} are called old",
            err=True,
        )
        return NO_RULES


def _looks_back(rule: Rule) -> int:
    return rule.over + (rule.measure.baseline if isinstance(rule.measure, Regression) else 0)
