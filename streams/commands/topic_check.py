"""What topics are wanted, and how one that exists differs."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.commands.cluster import Found
from streams.settings import Settings
from streams.topics import ENGINE, EVENTS, NOTIFIER, TOPICS, changelog


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it is to be, by its full name."""

    name: str
    partitions: int
    replication: int
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class Checked:
    """How a topic differs.

    `remedies`: what is not ours to change, and who does. `config`: what can be set, as it is and as wanted. `unknown`:
    what the broker does not tell.
    """

    remedies: tuple[str, ...] = ()
    config: dict[str, tuple[str, str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def replication(brokers: int) -> int:
    """Replicas of a topic on so many brokers."""
    return 3 if brokers >= 3 else 1


def wanted(settings: Settings, partitions: int, brokers: int) -> list[Wanted]:
    """Every topic of tocsin, where the event topic has so many partitions."""
    copies = replication(brokers)
    durable = {"min.insync.replicas": "2"} if copies == 3 else {}
    named = [(settings.topic_prefix + topic.name, topic) for topic in TOPICS]
    named += [(topic.name, topic) for topic in (changelog(settings.group, ENGINE), changelog(settings.group, NOTIFIER))]
    return [Wanted(name, topic.partitions or partitions, copies, topic.config | durable) for name, topic in named]


def compare(wanted: Wanted, found: Found) -> Checked:
    """How the topic that was found differs from the one that is wanted. More replicas than wanted are welcome."""
    remedies = []
    if found.partitions != wanted.partitions:
        way = (
            "delete it and run `tocsin topics` again"
            if not found.holds_data
            else "set a new TOCSIN_TOPIC_PREFIX and TOCSIN_GROUP"
        )
        remedies.append(f"{wanted.name} has {found.partitions} partitions, and {wanted.partitions} are needed: {way}")
    if found.replication < wanted.replication:
        shown = f"{wanted.name} has {found.replication} replicas instead of {wanted.replication}"
        remedies.append(f"{shown}: add some with kafka-reassign-partitions.sh")
    return Checked(
        tuple(remedies),
        {name: (found.config[name], value) for name, value in wanted.config.items() if found.config.get(name, value) != value},
        tuple(name for name in wanted.config if name not in found.config),
    )


def refused_partitions(settings: Settings, asked: int, found: int) -> str:
    """Why the partitions of the event topic stay as they are, and what to do instead."""
    name = settings.topic_prefix + EVENTS.name
    return (
        f"{name} has {found} partitions and keeps them: state, changelogs and the place of every tenant|service depend on "
        f"the number. For {asked}, set a new TOCSIN_TOPIC_PREFIX and TOCSIN_GROUP, run `tocsin topics --partitions {asked}` "
        f"and `tocsin deploy`, publish to the new topic (copy the events of {name} there to replay them), and then stop the "
        "old workers"
    )
