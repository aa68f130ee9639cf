"""What the lifecycle of an episode (native/lifecycle.zig) has to tell."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.alert import Reason


@dataclass(frozen=True, slots=True)
class Opening:
    """Where an episode opened, which is its identity: place in the log and time of judgement."""

    offset: int
    index: int
    opened_at: int


@dataclass(frozen=True, slots=True)
class Firing:
    """An episode that was announced with the severity of `rank`. `ordinal` counts its transitions so far."""

    opening: Opening
    rank: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Fired:
    """The episode begins to fire at `level`."""

    level: int


@dataclass(frozen=True, slots=True)
class Raised:
    """The episode rises in severity, to `level`."""

    level: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """The episode ends."""

    reason: Reason


Outcome = Fired | Raised | Resolved
