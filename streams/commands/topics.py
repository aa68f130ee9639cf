"""`tocsin topics`: the topics that tocsin needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Final

import click
from rich.table import Table
from rich.text import Text

from streams.commands.cluster import Cluster, Found, TopicError
from streams.commands.console import Failure, connected, examples, settings, stdout
from streams.commands.topic_check import Wanted, compare, refused_partitions, wanted
from streams.settings import Settings
from streams.topics import EVENTS, PARTITIONS, RULES

_STYLES: Final = {"ok": "green", "created": "bold green", "changed": "yellow", "differs": "bold red"}


@dataclass(slots=True)
class Row:
    """What became of a topic: ok, created, changed or differs; and what is to be said about it."""

    topic: Wanted
    found: Found | None
    state: str = "ok"
    notes: list[str] = field(default_factory=list)


@click.command("topics", epilog=examples("tocsin topics", "tocsin topics --partitions 32", "tocsin topics --yes"))
@click.option(
    "--partitions", type=click.IntRange(1, 10_000), help=f"Of the event topic, when it is created.  [default: {PARTITIONS}]"
)
@click.option("--yes", is_flag=True, help="Change the configuration of topics that hold data, too.")
def command(partitions: int | None, yes: bool) -> None:
    """Create the topics that are missing, and check those that exist.

    These are mcp.events, mcp.events.dlq, mcp.transitions, mcp.alerts, mcp.alerts.state, mcp.rules (TOCSIN_TOPIC_PREFIX
    stands before each) and the changelogs of the group; docs/topics.md has the table. On three brokers or more they get
    three replicas. A topic that differs is configured anew if it holds no data, or with --yes; partitions are never changed.

    Exit status: 0 all is as it should be, 1 something differs, 2 unusable settings.
    """
    configured = settings()
    try:
        all_fine = connected(configured, _topics(configured, partitions, yes=yes))
    except TopicError as error:
        raise Failure(str(error)) from None
    sys.exit(0 if all_fine else 1)


async def _topics(settings: Settings, partitions: int | None, *, yes: bool) -> bool:
    async with Cluster(settings.kafka_client()) as cluster:
        events = (await cluster.find([settings.topic_prefix + EVENTS.name])).get(settings.topic_prefix + EVENTS.name)
        if events and partitions and events.partitions != partitions:
            raise Failure(refused_partitions(settings, partitions, events.partitions))
        number = events.partitions if events else partitions or PARTITIONS
        all_wanted = wanted(settings, number, cluster.brokers)
        found = await cluster.find([topic.name for topic in all_wanted])
        missing = [topic for topic in all_wanted if topic.name not in found]
        created = [await cluster.create(topic.name, topic.partitions, topic.replication, topic.config) for topic in missing]
        await cluster.settled(topic.name for topic in all_wanted)
        found |= await cluster.find([topic.name for topic, ours in zip(missing, created, strict=True) if not ours])
        rows = [await _settle(cluster, topic, found.get(topic.name), yes=yes) for topic in all_wanted]
    stdout().print(_table(rows))
    for note in (note for row in rows for note in row.notes):
        click.echo(note)
    if not cluster.can_alter:
        click.echo(
            "This broker cannot change the configuration of a topic, and whether it stamps records by its own clock "
            "(LogAppendTime) could not be checked: if it does not, append times are those of the publishers."
        )
    differ = [row for row in rows if row.state == "differs"]
    if not differ:
        has_rules = any(row.found and row.found.holds_data for row in rows if row.topic.name.endswith(RULES.name))
        step = "tocsin run" if has_rules else "tocsin deploy rules/"
        click.echo(f"{len(rows)} topics on {settings.bootstrap_servers} are ready; next: {step}")
    return not differ


async def _settle(cluster: Cluster, topic: Wanted, found: Found | None, *, yes: bool) -> Row:
    """Bring a topic that was found into order, as far as that is allowed. None was found where it was created just now."""
    row = Row(topic, found)
    if found is None:
        row.state = "created"
        return row
    checked = compare(topic, found)
    row.notes += checked.remedies
    if checked.unknown:
        row.notes.append(f"{topic.name}: this broker does not tell {', '.join(checked.unknown)}; not checked")
    said = ", ".join(f"{name}={is_now} instead of {value}" for name, (is_now, value) in checked.config.items())
    if checked.config and cluster.can_alter and (yes or not found.holds_data):
        await cluster.configure(topic.name, {name: value for name, (_, value) in checked.config.items()}, found.overrides)
        row.state = "changed"
        row.notes.append(f"{topic.name} had {said}: changed")
    elif checked.config:
        row.state = "differs"
        remedy = "it holds data, so give --yes to change it" if cluster.can_alter else "this broker cannot change it"
        row.notes.append(f"{topic.name} has {said}: {remedy}")
    if checked.remedies:
        row.state = "differs"
    return row


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("TOPIC", "PARTITIONS", "REPLICAS", "CLEANUP", "DATA", "STATE"):
        table.add_column(title, justify="right" if title in ("PARTITIONS", "REPLICAS") else "left", overflow="fold")
    for row in rows:
        partitions, replicas = (
            (row.found.partitions, row.found.replication) if row.found else (row.topic.partitions, row.topic.replication)
        )
        data = "yes" if row.found and row.found.holds_data else "no"
        cells = [row.topic.name, str(partitions), str(replicas), row.topic.config["cleanup.policy"], data, row.state]
        table.add_row(*[Text(cell, _STYLES[row.state] if title == 5 else "") for title, cell in enumerate(cells)])
    return table
