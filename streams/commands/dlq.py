"""`tocsin dlq`: look at dead letters, and send them once more."""

from __future__ import annotations

import heapq
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from aiokafka import AIOKafkaProducer
from rich.table import Table
from rich.text import Text

from schemas.dead_letter import DeadReason
from schemas.time import to_duration, to_event_time, to_rfc3339
from streams.commands.console import Failure, connected, examples, settings, stdout, visible
from streams.dead_letters import Filter, Letter, NoDeadLetterError, Place, Redriver, extents_of, letter_at, letters
from streams.records import Outgoing
from streams.settings import Settings
from streams.topic_reader import TopicReader
from streams.topics import DEAD_LETTERS, EVENTS

SHOWN: Final = 50
_REASONS: Final = [str(reason) for reason in DeadReason]
VALUE_SHOWN: Final = 2_000
MAX_REDRIVE: Final = 100_000
"""Dead letters that one call sends; more are left for the next."""
TOLD: Final = 20


class _PlaceType(click.ParamType):
    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """`partition/offset` of the dead letter."""
        if isinstance(value, Place):
            return value
        match = re.fullmatch(r"(\d{1,9})/(\d{1,18})", value)
        if match is None:
            self.fail(
                f"{value!r} is no PARTITION/OFFSET of the topic of dead letters, as `tocsin dlq list` prints it", param, ctx
            )
        return Place(int(match[1]), int(match[2]))


class _Since(click.ParamType):
    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds since the epoch, from a duration before now or a time."""
        if isinstance(value, int):
            return value
        try:
            return (time.time_ns() // 1000 - to_duration(value)) // 1000
        except ValueError:
            pass
        try:
            return to_event_time(value) // 1000
        except ValueError:
            self.fail(f"{value!r} is neither a duration (90m, 2h) nor a time (2026-11-23T00:00:00Z)", param, ctx)


def _filters(function: Any) -> Any:
    for option in (
        click.option("--since", type=_Since(), metavar="WHEN", help="Only those since then: 2h, or 2026-11-23T00:00:00Z."),
        click.option("--partition", type=click.IntRange(0), help="Only records of this partition of the event topic."),
        click.option("--reason", "reasons", multiple=True, type=click.Choice(_REASONS), help="Only with this reason."),
    ):
        function = option(function)
    return function


@click.group("dlq", epilog=examples("tocsin dlq list --summary", "tocsin dlq show 3/42", "tocsin dlq redrive 3/42"))
def command() -> None:
    """Look at dead letters (mcp.events.dlq: records that could not be processed), and send them once more."""


# --- list ----------------------------------------------------------------------------------------------------------


@command.command(
    "list", epilog=examples("tocsin dlq list --since 2h", "tocsin dlq list --summary", "tocsin dlq list --reason future")
)
@_filters
@click.option("--limit", type=click.IntRange(1, 10_000), default=SHOWN, show_default=True, help="Show the newest so many.")
@click.option("--summary", is_flag=True, help="Only counts, by reason and source partition.")
def list_(reasons: tuple[str, ...], partition: int | None, since: int | None, limit: int, summary: bool) -> None:
    """List dead letters, the newest last.

    PLACE is where the dead letter stands, SOURCE where the record stood on the event topic, both as partition/offset.
    """
    configured = settings()
    connected(configured, _list(configured, Filter(frozenset(reasons), partition, since), limit, summary=summary))


async def _list(settings: Settings, wanted: Filter, limit: int, *, summary: bool) -> None:
    counts: Counter[tuple[str, int]] = Counter()
    newest: list[tuple[int, Place, Letter]] = []
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + DEAD_LETTERS.name) as reader:
        async for letter in letters(reader):
            if not wanted.takes(letter):
                continue
            counts[letter.reason, letter.source.partition] += 1
            if not summary:
                item = (letter.at, letter.place, _brief(letter))
                (heapq.heappush if len(newest) < limit else heapq.heappushpop)(newest, item)
    if summary:
        stdout().print(_counts(counts))
    elif newest:
        stdout().print(_table([letter for _, _, letter in sorted(newest)]))
    total = counts.total()
    shown = f"; the newest {limit} are shown" if total > limit and not summary else ""
    click.echo(f"{total} dead letters{shown}")


def _brief(letter: Letter) -> Letter:
    """Without what a list does not show, so that many take little memory."""
    return Letter(
        letter.place, letter.at, None, None, (), letter.topic, letter.source, letter.appended,
        letter.stage, letter.reason, letter.message,
    )  # fmt: skip


def _counts(counts: Counter[tuple[str, int]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("REASON", "PARTITION", "NUMBER"):
        table.add_column(title, justify="left" if title == "REASON" else "right")
    for (reason, partition), number in sorted(counts.items()):
        table.add_row(Text(visible(reason)), str(partition), str(number))
    return table


def _table(found: list[Letter]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("PLACE", "AT", "REASON", "SOURCE", "MESSAGE"):
        table.add_column(title, overflow="fold", no_wrap=title in ("PLACE", "AT", "REASON"))
    for letter in found:
        cells = [str(letter.place), to_rfc3339(letter.at * 1000), letter.reason, str(letter.source), letter.message[:160]]
        table.add_row(*[Text(visible(cell)) for cell in cells])
    return table


# --- show ----------------------------------------------------------------------------------------------------------


@command.command("show", epilog=examples("tocsin dlq show 3/42", "tocsin dlq show 3/42 --raw record.json"))
@click.argument("place", type=_PlaceType())
@click.option(
    "--raw", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the bytes of the value there."
)
def show(place: Place, raw: Path | None) -> None:
    """Show the dead letter at PLACE: why, where from, headers, key and value (control characters are written out)."""
    configured = settings()
    letter = _letter(configured, place)
    stamp = to_rfc3339(letter.appended * 1000)
    rows = [
        ("reason", f"{letter.reason} ({letter.stage})"), ("message", letter.message),
        ("source", f"{letter.topic} {letter.source}, appended {stamp}"), ("key", _shown(letter.key)),
        *((f"header {name}", _shown(value)) for name, value in letter.headers),
    ]  # fmt: skip
    if letter.truncated:
        rows.append(("cut", f"the record had {letter.truncated} bytes; what is kept is its beginning"))
    for name, text in rows:
        click.echo(f"{visible(name)}: {visible(text)}")
    size = len(letter.value or b"")
    more = f"; the first {VALUE_SHOWN} follow, --raw FILE writes all" if size > VALUE_SHOWN else ""
    click.echo(f"value: {'none' if letter.value is None else f'{size} bytes{more}'}")
    if letter.value:
        click.echo(_shown(letter.value))
    if raw is not None:
        try:
            raw.write_bytes(letter.value or b"")
        except OSError as error:
            raise Failure(f"{raw} cannot be written: {error.strerror}") from None
        click.echo(f"wrote {size} bytes to {raw}", err=True)


def _letter(settings: Settings, place: Place) -> Letter:
    try:
        return connected(settings, letter_at(settings, place))
    except NoDeadLetterError as error:
        raise Failure(str(error)) from None


def _shown(value: bytes | None) -> str:
    """The beginning of `value` as text that cannot act on a terminal."""
    return "none" if value is None else visible(value[:VALUE_SHOWN].decode("utf-8", "backslashreplace"))


# --- redrive -------------------------------------------------------------------------------------------------------


@command.command(
    "redrive",
    epilog=examples(
        "tocsin dlq redrive 3/42",
        "tocsin dlq redrive --reason future --since 6h --dry-run",
        "tocsin dlq redrive 3/42 --value mended.json",
    ),
)
@click.argument("places", type=_PlaceType(), nargs=-1, metavar="[PLACE]...")
@_filters
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option(
    "--value",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Send this in place of the value.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent and what refused; send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask, however many there are.")
def redrive(
    places: tuple[Place, ...],
    reasons: tuple[str, ...],
    partition: int | None,
    since: int | None,
    everything: bool,
    value: Path | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Send dead letters to mcp.events once more: those at PLACE, or those that the filters choose.

    A record goes back to the partition where it stood first, and is known by that place ever after: it counts once, however
    often, by whomever and in whatever form it is redriven. What would be refused again is named and left out.
    Records can be redriven for 14 days after they were first appended. A record that was cut needs --value.

    Exit status: 0 all that was chosen was sent (--dry-run: can be sent), 1 some was refused, left or not there, 2 unusable
    settings.
    """
    chosen = Filter(frozenset(reasons), partition, since)
    if bool(places) == (chosen != Filter() or everything):
        raise click.UsageError("give either places, or filters (--reason, --partition, --since), or --all")
    if value is not None and len(places) != 1:
        raise click.UsageError("--value needs exactly one PLACE")
    configured = settings(signs=True)
    try:
        body = None if value is None else value.read_bytes()
    except OSError as error:
        raise Failure(f"{value} cannot be read: {error.strerror}") from None
    try:
        is_all = connected(configured, _redrive(configured, places, chosen, body, dry_run=dry_run, yes=yes or len(places) == 1))
    except NoDeadLetterError as error:
        raise Failure(str(error)) from None
    sys.exit(0 if is_all else 1)


async def _redrive(
    settings: Settings, places: Sequence[Place], chosen: Filter, body: bytes | None, *, dry_run: bool, yes: bool
) -> bool:
    """Check, ask and send; whether all was sent that was chosen, or can be."""
    topic = settings.topic_prefix + EVENTS.name
    redriver = Redriver(topic, await extents_of(settings, topic), settings.control_key.encode() or None)
    good: set[Place] = set()
    refused = left = 0
    async for letter in _meant(settings, places, chosen):
        made = redriver.outgoing(letter, body)
        if isinstance(made, str):
            refused += 1
            _tell_refused(letter, made, refused)
        elif len(good) < MAX_REDRIVE:
            good.add(letter.place)
        else:
            left += 1
    rest = f"; {left} more are left for the next call" if left else ""
    click.echo(f"{len(good)} dead letters can be redriven, {refused} would be refused again{rest}")
    is_all = bool(good) and not refused and not left
    if dry_run or not good:
        return is_all
    if not (yes or _confirmed(len(good), topic)):
        return False
    sent = await _send(settings, redriver, _meant(settings, places, chosen), good, body)
    click.echo(f"{sent} records sent to {topic}; each counts once, whatever was redriven before")
    return is_all and sent == len(good)


async def _meant(settings: Settings, places: Sequence[Place], chosen: Filter) -> AsyncIterator[Letter]:
    if places:
        for place in dict.fromkeys(places):
            yield await letter_at(settings, place)
        return
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + DEAD_LETTERS.name) as reader:
        async for letter in letters(reader):
            if chosen.takes(letter):
                yield letter


def _tell_refused(letter: Letter, why: str, number: int) -> None:
    if number <= TOLD:
        click.echo(f"{letter.place} (record {letter.source}) is refused: {visible(why)}", err=True)
    elif number == TOLD + 1:
        click.echo("more are refused; they are counted", err=True)


def _confirmed(number: int, topic: str) -> bool:
    if not sys.stdin.isatty():
        raise Failure(f"{number} records would be sent to {topic}: give --yes, or --dry-run to look only")
    return click.confirm(f"send {number} records to {topic}?")


async def _send(
    settings: Settings, redriver: Redriver, meant: AsyncIterator[Letter], good: set[Place], body: bytes | None
) -> int:
    sent = 0
    producer = AIOKafkaProducer(
        **settings.kafka_client(),
        acks="all",
        enable_idempotence=settings.fencing == "on",
        max_request_size=int(EVENTS.config["max.message.bytes"]),
    )
    await producer.start()
    try:
        async for letter in meant:
            made = redriver.outgoing(letter, body) if letter.place in good else ""
            if isinstance(made, Outgoing):
                await producer.send_and_wait(
                    redriver.topic, made.value, key=made.key, partition=made.partition, headers=list(made.headers)
                )
                sent += 1
    except BaseException:
        click.echo(f"{sent} records were sent; call it again to send the others, those that were sent count once", err=True)
        raise
    finally:
        await producer.stop()
    return sent
