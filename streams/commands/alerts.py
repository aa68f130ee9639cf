"""`tocsin alerts`: what is firing now, and the alert topic live."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Final

import click
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from schemas.alert import DISPATCHED, Alert
from schemas.condition import SEVERITIES
from schemas.time import duration_text, to_micros, to_rfc3339
from streams.commands.console import connected, examples, settings, stdout, visible
from streams.settings import Settings
from streams.topic_reader import Read, TopicReader
from streams.topics import ALERT_STATE, ALERTS

_STYLES: Final = {"info": "blue", "warning": "yellow", "high": "bright_red", "critical": "bold red", "resolved": "green"}


@click.command(
    "alerts",
    epilog=examples(
        "tocsin alerts", "tocsin alerts --json | jq -r .message", "tocsin alerts --follow", "tocsin alerts --limit 5"
    ),
)
@click.option("--follow", is_flag=True, help="Print each alert as it is dispatched, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One record per line, as JSON.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many; with --follow, end after them.")
def command(follow: bool, as_json: bool, limit: int | None) -> None:
    """Show what is firing, the worst first.

    Reads mcp.alerts.state. 'notified' is an alert that was dispatched; 'held' waits for the cooldown of its rule. With
    --follow it reads mcp.alerts instead, from now on.
    """
    configured = settings()
    if not follow:
        connected(configured, _list(configured, as_json, limit))
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        connected(configured, _follow(configured, as_json, limit))


async def _list(settings: Settings, as_json: bool, limit: int | None) -> None:
    last: dict[bytes | None, Read] = {}
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + ALERT_STATE.name) as reader:
        async for record in reader.to_end():
            last.pop(record.key, None)
            if record.value is not None:
                last[record.key] = record
    alerts = [(alert, record) for record in last.values() if (alert := _read(record)) and alert.status == "firing"]
    alerts.sort(key=lambda each: (-SEVERITIES.index(each[0].severity), each[0].started_at, each[0].dedup_key))
    if as_json:
        for _, record in alerts[:limit]:
            click.echo(_json(record))
        return
    if not alerts:
        click.echo("nothing is firing")
        return
    stdout().print(_table([alert for alert, _ in alerts[:limit]], time.time_ns() // 1000))
    more = len(alerts) - len(alerts[:limit])
    click.echo(f"{len(alerts)} firing" + (f", {more} of them not shown (--limit)" if more else ""))


async def _follow(settings: Settings, as_json: bool, limit: int | None) -> None:
    console = stdout()
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + ALERTS.name) as reader:
        click.echo(f"following {settings.topic_prefix}{ALERTS.name} at {settings.bootstrap_servers}; Ctrl-C ends", err=True)
        shown = 0
        async for record, alert in _readable(reader.live()):
            if as_json:
                click.echo(_json(record))
            else:
                console.print(line(alert), soft_wrap=True)
            shown += 1
            if shown == limit:
                return


async def _readable(records: AsyncIterator[Read]) -> AsyncIterator[tuple[Read, Alert]]:
    async for record in records:
        if alert := _read(record):
            yield record, alert


def _read(record: Read) -> Alert | None:
    """The alert in `record`; one that holds none is named on the standard error and left out."""
    try:
        return Alert.model_validate_json(record.value or b"")
    except ValidationError as error:
        problem = visible(str(error.errors()[0]["msg"]))
        click.echo(f"not an alert: partition {record.partition}, offset {record.offset}: {problem}", err=True)
        return None


def _json(record: Read) -> str:
    """The record in one line of ASCII, so that nothing in it acts on a terminal."""
    return json.dumps(json.loads(record.value or b"null"), separators=(",", ":"))


def _table(alerts: list[Alert], now: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("AGE", "SEVERITY", "STATUS", "RULE", "SOURCE", "MESSAGE", "VALUE", "THRESHOLD", "NOTIFIED"):
        table.add_column(title, overflow="fold", no_wrap=title in ("AGE", "SEVERITY", "STATUS"))
    for alert in alerts:
        cells = [_age(now - alert.started_at), alert.severity, alert.status, alert.rule, _source(alert), alert.message]
        cells += [_value(alert), _threshold(alert), _notified(alert)]
        style = _STYLES[alert.severity]
        table.add_row(*[Text(visible(cell), style if title == 1 else "") for title, cell in enumerate(cells)])
    return table


def line(alert: Alert) -> Text:
    """An alert as one line: when, how severe or resolved, rule, source, message, value and threshold."""
    state = "resolved" if alert.status == "resolved" else alert.severity
    text = Text(f"{to_rfc3339(alert.decided_at)} ")
    text.append(f"{state:<8} ", _STYLES[state])
    text.append(visible(f"{alert.rule} {_source(alert)}: {alert.message}"))
    if alert.value is not None:
        text.append(visible(f" (value {_value(alert)}, threshold {_threshold(alert)})"))
    return text


def _source(alert: Alert) -> str:
    return alert.source if alert.tenant == "default" else f"{alert.tenant}/{alert.source}"


def _age(micros: int) -> str:
    """The two largest units."""
    seconds = max(0, micros) // 1_000_000
    coarse = seconds if seconds < 3600 else seconds // 60 * 60 if seconds < 86_400 else seconds // 3600 * 3600
    return duration_text(coarse * 1_000_000)


def _value(alert: Alert) -> str:
    return "-" if alert.value is None else f"{alert.value:.6g}{' ' if alert.unit else ''}{alert.unit or ''}"


def _threshold(alert: Alert) -> str:
    match alert.threshold:
        case None:
            return "-"
        case (low, high):
            return f"{low:.6g} to {high:.6g}"
        case number:
            return f"{number:.6g}"


def _notified(alert: Alert) -> str:
    if alert.reason in DISPATCHED:
        return "yes"
    until = alert.details.get("held_until")
    return f"held until {_moment(until)}" if until is not None else "not yet"


def _moment(value: object) -> str:
    try:
        return to_rfc3339(to_micros(value))
    except ValueError:
        return str(value)
