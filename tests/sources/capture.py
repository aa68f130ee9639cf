"""Sinks that stand in for an outlet."""

from __future__ import annotations

import json
import threading
from typing import Any

from schemas.event import Event, parse_event


class Capture:
    """Keeps what it is offered, as an outlet would send it."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._arrived = threading.Condition()

    def offer(self, event: dict[str, Any]) -> None:
        fields = {name: value for name, value in ({"tenant": "default", "service": "s"} | event).items() if value is not None}
        with self._arrived:
            self.raw.append(json.dumps(fields).encode())
            self._arrived.notify_all()

    @property
    def events(self) -> list[Event]:
        return [parse_event(raw) for raw in self.raw]

    def operations(self) -> list[Event]:
        return [event for event in self.events if event.kind == "operation"]

    def actions(self) -> list[str | None]:
        return [event.action for event in self.events if event.kind == "connection"]

    def wait_for(self, number: int, within: float = 10) -> list[Event]:
        """The events, once there are `number` of them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.raw) >= number, within), self.raw
        return self.events


class Broken:
    """Breaks the promise of a sink."""

    def offer(self, event: dict[str, Any]) -> None:
        raise RuntimeError("the sink is broken")
