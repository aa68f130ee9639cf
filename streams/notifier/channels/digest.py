"""Digests: what a channel says in place of alerts that were decided too late to page anybody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from aiokafka import TopicPartition

from schemas.alert import Alert, fingerprint
from schemas.condition import SEVERITIES, Severity
from schemas.time import MICROS

QUIET: Final = 5 * MICROS
"""Microseconds without another stale alert after which a digest is due."""
PATIENCE: Final = 60 * MICROS
"""Microseconds after the first stale alert at which a digest is due in any case."""
MAX_EPISODES: Final = 10_000
"""Episodes that are told apart, per partition; those beyond are only counted."""
MAX_NAMED: Final = 10
"""Episodes that still fire and are named."""


@dataclass(frozen=True, slots=True)
class Digest:
    """So many `alerts` were decided up to `behind` µs after their events; `firing` names some of those not over yet.

    `began` is when the first of them began to fire (µs); `severity` is the highest among those not over yet, or "info".
    """

    id: str
    alerts: int
    resolved: int
    behind: int
    began: int
    firing: tuple[str, ...]
    severity: Severity

    @property
    def text(self) -> str:
        """The digest as a sentence."""
        minutes = max(1, round(self.behind / (60 * MICROS)))
        text = f"while {minutes} min behind: {self.alerts} alert{'s' * (self.alerts != 1)}, {self.resolved} already resolved"
        if not self.firing:
            return text
        more = self.alerts - self.resolved - len(self.firing)
        return f"{text}; still firing: {', '.join(self.firing)}" + (f" and {more} more" if more > 0 else "")


@dataclass(slots=True)
class _Tally:
    """The stale alerts of one partition since the last digest."""

    first: int
    firing: dict[str, Alert] = field(default_factory=dict)
    resolved: int = 0
    beyond: int = 0
    behind: int = 0
    began: int | None = None

    def add(self, alert: Alert) -> None:
        if alert.status == "resolved":
            # One without its firing here ends what an earlier digest told of.
            self.resolved += self.firing.pop(alert.dedup_key, None) is not None
            return
        age = alert.details.get("age")
        self.behind = max(self.behind, age if type(age) is int else 0)
        self.began = alert.started_at if self.began is None else min(self.began, alert.started_at)
        if alert.dedup_key in self.firing or len(self.firing) < MAX_EPISODES:
            self.firing[alert.dedup_key] = alert
        else:
            self.beyond += 1

    @property
    def alerts(self) -> int:
        return len(self.firing) + self.resolved + self.beyond


class Missed:
    """The stale alerts of a channel, until they are told of in one digest."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._tallies: dict[TopicPartition, _Tally] = {}
        self._told: dict[TopicPartition, int] = {}
        self._is_under_way = False
        self._first_at = self._last_at = 0

    def add(self, partition: TopicPartition, offset: int, alert: Alert, now: int) -> None:
        """`alert` was read at `now` (µs)."""
        if not self._tallies:
            self._first_at = now
        self._last_at = now
        self._tallies.setdefault(partition, _Tally(offset)).add(alert)

    def is_due(self, now: int) -> bool:
        """Whether a digest is to be taken: none is under way, and what comes together has come."""
        waited = now - self._last_at >= QUIET or now - self._first_at >= PATIENCE
        return bool(self._tallies) and not self._is_under_way and waited

    def take(self) -> Digest | None:
        """The digest; None where only episodes ended that were told of before. `done` ends it."""
        tallies, self._tallies = self._tallies, {}
        self._told = {partition: tally.first for partition, tally in tallies.items()}
        alerts = sum(tally.alerts for tally in tallies.values())
        if not alerts:
            self._told = {}
            return None
        self._is_under_way = True
        firing = sorted(_all_of(tallies.values()), key=lambda alert: -SEVERITIES.index(alert.severity))
        places = sorted((partition.partition, first) for partition, first in self._told.items())
        return Digest(
            id=fingerprint("digest", self._channel, places),
            alerts=alerts,
            resolved=sum(tally.resolved for tally in tallies.values()),
            behind=max(tally.behind for tally in tallies.values()),
            began=min(tally.began for tally in tallies.values() if tally.began is not None),
            firing=tuple(f"{alert.rule} {alert.tenant}/{alert.source}" for alert in firing[:MAX_NAMED]),
            severity=firing[0].severity if firing else "info",
        )

    def done(self) -> None:
        """The digest that was taken is done with."""
        self._told, self._is_under_way = {}, False

    def first(self, partition: TopicPartition) -> int | None:
        """The offset of the first alert of `partition` that is not told of yet."""
        tally = self._tallies.get(partition)
        return self._told.get(partition, tally.first if tally is not None else None)

    def forget(self, partition: TopicPartition) -> None:
        """Another worker reads `partition` now, and tells of it. A digest that is under way stays so: the next waits for it."""
        self._tallies.pop(partition, None)
        self._told.pop(partition, None)


def _all_of(tallies: Iterable[_Tally]) -> list[Alert]:
    return [alert for tally in tallies for alert in tally.firing.values()]
