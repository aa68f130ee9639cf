"""Times at which keys become due."""

from __future__ import annotations

import heapq
from typing import Final

_SLACK: Final = 1_000


class Timers:
    """At most one time per key; setting it again replaces it. Memory is that of the keys."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: str, at: int) -> None:
        """Make `key` due at `at`, microseconds."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(at, key) for key, at in self._at.items()]
            heapq.heapify(self._heap)

    def discard(self, key: str) -> None:
        """Forget the time of `key`, if it has one."""
        self._at.pop(key, None)

    def first(self) -> tuple[int, str] | None:
        """The time that is due first, and its key."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def due(self, now: int, limit: int) -> list[str]:
        """At most `limit` keys whose time has come, soonest first. They are forgotten."""
        keys: list[str] = []
        while len(keys) < limit and (first := self.first()) is not None and first[0] <= now:
            keys.append(first[1])
            del self._at[first[1]]
        return keys
