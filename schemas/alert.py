"""What tocsin decides: the records of `mcp.transitions` and `mcp.alerts`, one shape for both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from schemas.condition import Severity
from schemas.time import Moment, to_rfc3339

Status = Literal["firing", "resolved"]
Time = Annotated[Moment, PlainSerializer(to_rfc3339, return_type=str, when_used="json")]
VERSION: Final = 1
RULE_FAILING: Final = "tocsin.rule_failing"
"""The rule of the alerts that say that a rule fails. No rule module can define one of this name."""


class Reason(StrEnum):
    """Why a transition happened (the first six), and what the notifier made of it (the rest)."""

    CONDITION_MET = "condition_met"
    SEVERITY_RAISED = "severity_raised"
    RECOVERED = "recovered"
    NO_DATA = "no_data"
    RULE_REMOVED = "rule_removed"
    RULE_FAILING = "rule_failing"
    FIRST_NOTIFICATION = "first_notification"
    COOLDOWN_OVER = "cooldown_over"
    RESOLVED = "resolved"
    IN_COOLDOWN = "in_cooldown"
    ENDED_WHILE_HELD = "ended_while_held"
    STALE = "stale"


DISPATCHED: Final = frozenset(
    {Reason.FIRST_NOTIFICATION, Reason.SEVERITY_RAISED, Reason.COOLDOWN_OVER, Reason.RESOLVED, Reason.STALE}
)
"""Decisions of the notifier that put a record on `mcp.alerts`. Channels page nobody for a stale one: it tells of the past."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Window(_Frozen):
    """The window that was judged, [start, end)."""

    start: Time
    end: Time


class Evidence(_Frozen):
    """Where the events that were counted stand in the log: all of them lie between these offsets."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    events: int


class Alert(_Frozen):
    """One decision: an episode of a rule and a group began to fire, rose in severity, or ended.

    `id` names the decision and is the same in every copy of it; `dedup_key` names the episode. `reason` says why this
    record was written; on `mcp.transitions` the decisions of the engine carry their cause, and those of the notifier
    that dispatched nothing carry what held them back.
    """

    v: int = VERSION
    id: str
    dedup_key: str
    rule: str
    revision: str | None
    status: Status
    severity: Severity
    source: str = Field(description="The service that the alert is about.")
    tenant: str
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    message: str
    details: dict[str, Any] = Field(default_factory=dict)
    value: float | None
    threshold: float | tuple[float, float] | None
    unit: str | None = None
    window: Window | None
    started_at: Time
    timestamp: Time
    decided_at: Time
    resolved_at: Time | None = None
    reason: Reason
    fire_count: int = Field(
        default=1, description="Firings of this rule and group since the last one dispatched, this one included."
    )
    channels: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] | None = None

    @property
    def key(self) -> str:
        """The key of its record on `mcp.alerts`."""
        return f"{self.tenant}|{self.dedup_key}"


class Transition(Alert):
    """A record of `mcp.transitions`: every decision, dispatched or not. Its key is the tenant."""


def fingerprint(*parts: Any) -> str:
    """Hash of JSON values: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()[:32]


def group_fingerprint(rule: str, labels: Mapping[str, str]) -> str:
    """Identity of (rule, group), whatever the order of the labels."""
    return fingerprint(rule, sorted(labels.items()))
