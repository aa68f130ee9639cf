"""The topics: their names, keys and configuration. docs/topics.md holds the same table, and a test compares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PARTITIONS: Final = 8
DAY_MS: Final = 86_400_000
MIB: Final = 1 << 20
MAX_RECORD: Final = MIB
CHECKPOINT_LIMIT: Final = 16 * MIB


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: `partitions` None means as many as the event topic."""

    name: str
    key: str
    purpose: str
    partitions: int | None = None
    config: dict[str, str] = field(default_factory=dict)


def _deleted(days: int, size: int, **config: str) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(days * DAY_MS),
        "max.message.bytes": str(size),
        "message.timestamp.type": "LogAppendTime",
    } | {name.replace("_", "."): value for name, value in config.items()}


def _compacted(size: int) -> dict[str, str]:
    return {"cleanup.policy": "compact", "max.message.bytes": str(size)}


EVENTS: Final = Topic(
    "mcp.events", "tenant|service", "telemetry, ticks and ruleset records", None, _deleted(14, MAX_RECORD + 65_536)
)
DEAD_LETTERS: Final = Topic("mcp.events.dlq", "as it was", "records that could not be processed", None, _deleted(14, 2 * MIB))
TRANSITIONS: Final = Topic("mcp.transitions", "tenant", "every decision", None, _deleted(14, MAX_RECORD))
ALERTS: Final = Topic(
    "mcp.alerts", "tenant|dedup_key", "what was dispatched: the public contract", None, _deleted(14, MAX_RECORD)
)
ALERT_STATE: Final = Topic("mcp.alerts.state", "tenant|dedup_key", "what fires now", None, _compacted(MAX_RECORD))
RULES: Final = Topic("mcp.rules", "rule/, ruleset/, deploy/, deployed/", "rules, rulesets and deploys", 1, _compacted(MAX_RECORD))
TOPICS: Final = (EVENTS, DEAD_LETTERS, TRANSITIONS, ALERTS, ALERT_STATE, RULES)

ENGINE: Final = "engine"
NOTIFIER: Final = "notifier"


def group_name(group: str, role: str) -> str:
    """The consumer group, and Faust's application id, of the engine or the notifier."""
    return f"{group}-{role}"


def changelog_name(group: str, role: str) -> str:
    """The changelog of the engine's or the notifier's table, as Faust names it."""
    return f"{group_name(group, role)}-state-changelog"


def changelog(group: str, role: str) -> Topic:
    """The changelog topic of `role`: compacted, records as large as a checkpoint."""
    return Topic(changelog_name(group, role), "state key", f"state of the {role}", None, _compacted(CHECKPOINT_LIMIT + 65_536))
