"""A clock that stands still until it is told to go on."""

from __future__ import annotations

from schemas.time import to_duration

START = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


class Clock:
    """Call it for the time in microseconds; `advance` moves it."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, by: str | int) -> int:
        """Move on by a duration such as '30s' or by microseconds, and return the new time."""
        self.now += to_duration(by)
        return self.now
