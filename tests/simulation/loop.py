"""An event loop on which no time passes but what is waited for, and in which a seed decides who goes first."""

from __future__ import annotations

import asyncio
import random
from typing import Any


class DeadlockError(RuntimeError):
    """Everybody waits, and nothing is due."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Virtual time; what is ready runs in an order that `choices` shuffles."""

    def __init__(self, choices: random.Random) -> None:
        super().__init__()
        self._choices, self._now = choices, 0.0
        self._selector = self

    def time(self) -> float:
        """Seconds since the world began."""
        return self._now

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for the next timer: no time passes outside."""
        if timeout is None:
            raise DeadlockError
        self._now += timeout
        return []

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        if len(ready) > 1:
            shuffled = list(ready)
            self._choices.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]

    def _process_events(self, _events: object) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads."""
