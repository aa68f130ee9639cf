"""Transitions as the engine writes them, and the records that carry them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from schemas.alert import Alert, Reason, Transition, fingerprint
from schemas.time import to_duration
from streams.notifier.policy import Case, read_case
from streams.records import Outgoing
from streams.testing import START

MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was fetched."""

    offset: int
    value: bytes | None
    key: bytes | None = b"acme"
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = START // 1000


@dataclass(slots=True)
class Journal:
    """A changelog of one partition, folded."""

    table: dict[bytes, bytes] = field(default_factory=dict)
    appended: int = 0

    async def append(self, partition: int, items: list[tuple[bytes, bytes | None]]) -> int:
        for key, value in items:
            if value is None:
                self.table.pop(key, None)
            else:
                self.table[key] = value
        self.appended += len(items)
        return self.appended - 1


@dataclass(slots=True)
class Episode:
    """Makes the transitions of one episode of a rule and group, in order."""

    name: str = "e1"
    service: str = "files"
    cooldown: str | int = "15m"
    channels: tuple[str, ...] = ("log",)
    tenant: str = "acme"
    at: int = START
    ordinal: int = field(default=0, init=False)

    def fire(self) -> Transition:
        assert self.ordinal == 0
        return self._next("fired", "firing", "warning", Reason.CONDITION_MET)

    def rise(self) -> Transition:
        return self._next("raised", "firing", "critical", Reason.SEVERITY_RAISED)

    def resolve(self) -> Transition:
        return self._next("resolved", "resolved", "warning", Reason.RECOVERED)

    def _next(self, kind: str, status: Any, severity: Any, reason: Reason) -> Transition:
        labels = {"tenant": self.tenant, "service": self.service}
        dedup_key = fingerprint(self.name, sorted(labels.items()))
        ordinal, self.ordinal = self.ordinal, self.ordinal + 1
        details = {
            "cooldown": to_duration(self.cooldown), "kind": kind, "ordinal": ordinal,
            "partition": 0, "offset": 7, "index": 0, "append_time": self.at,
        }  # fmt: skip
        return Transition(
            id=fingerprint(dedup_key, kind, ordinal), dedup_key=dedup_key, rule="tool-error-rate", revision="0123456789abcdef",
            status=status, severity=severity, source=self.service, tenant=self.tenant, labels=labels,
            annotations={"summary": f"{self.service} fails"}, message=f"{self.service} fails", details=details,
            value=0.5, threshold=0.2, window=None, started_at=self.at, timestamp=self.at, decided_at=self.at,
            resolved_at=self.at if kind == "resolved" else None, reason=reason, channels=self.channels,
        )  # fmt: skip


def encode(transition: Alert) -> bytes:
    return transition.model_dump_json().encode()


def case(transition: Transition) -> Case:
    return read_case(encode(transition))


def log(*transitions: Transition, first: int = 0) -> list[Record]:
    return [Record(first + place, encode(transition)) for place, transition in enumerate(transitions)]


def told(out: list[Outgoing] | Any, topic: str) -> list[Alert]:
    """The alerts among what went to `topic`."""
    return [Alert.model_validate_json(item.value) for item in out if item.topic == topic and item.value is not None]


def reasons(out: Any) -> list[tuple[str, Reason]]:
    """Topic and reason of every decision, in order."""
    return [
        (item.topic, Alert.model_validate_json(item.value).reason)
        for item in out
        if item.topic in ("mcp.alerts", "mcp.transitions") and item.value is not None
    ]
