"""Telemetry and rules of the simulated world."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any, Final

from schemas.control import HEADER, RulesetRecord, Tick
from schemas.rule import Rule, Ruleset, above, absence, below, count, error_rate, event, mean
from streams.partitioner import event_key, partition_of
from streams.testing import START
from streams.topics import EVENTS
from tests.simulation.broker import Broker, New

TICK: Final = New(None, b"", ((HEADER, Tick().model_dump_json().encode()),))
SERVICES: Final = (("acme", "files"), ("acme", "mail"), ("bmce", "files"), ("bmce", "time"))
POISON: Final = (None, b"", b"{", b'{"ts":1}', b"[[]]", b'{"a":NaN}', b"\xff")

_failing = Rule(
    name="failing",
    condition=error_rate("*", 0.5, "2s", every="500ms", errors=("tool_error",), at_least=2),
    recover=below(0.3),
    cooldown="3s",
)
_busy = Rule(
    name="busy", select=event.outcome == "tool_error", measure=count(), over="2s", every="1s", warning=above(1),
    critical=above(3), cooldown="2s", summary="{value:g} failures of {service}",
)  # fmt: skip
_slow = Rule(
    name="slow", select=event.kind == "operation", measure=mean("dur_us"), over="2s", every="1s", warning=above(20, at_least=2),
    by=("tenant", "service", "tool"), hold_for="500ms", cooldown=0, summary="{tool} takes {value:g} us",
)  # fmt: skip
_silent = Rule(name="silent", condition=absence(("tenant", "service"), "2s", every="1s"), cooldown="2s")
RULESETS: Final = (
    Ruleset(rules=(_failing, _slow)),
    Ruleset(rules=(_busy, _silent)),
    Ruleset(rules=(_failing, _busy)),
    Ruleset(rules=(_failing, _busy.model_copy(update={"cooldown": 0}), _slow)),
)


def switch(ruleset: Ruleset, seq: int) -> New:
    """The record that makes `ruleset` active."""
    said = RulesetRecord(id=ruleset.id, seq=seq).model_dump_json().encode()
    return New(None, b"", ((HEADER, said),))


class Load:
    """`number` records over `seconds`, in bursts; services fail for a while and recover."""

    def __init__(self, broker: Broker, choices: random.Random, number: int, seconds: float) -> None:
        self._broker, self._choices, self._number, self._seconds = broker, choices, number, seconds
        self._partitions = broker.partitions[EVENTS.name]
        self._failing: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Append all of it."""
        choices, loop = self._choices, asyncio.get_running_loop()
        rulesets = choices.sample(RULESETS, 2)
        for place in range(self._partitions):
            self._append(place, switch(rulesets[0], 1))
        at_switch = choices.randrange(self._number) if choices.random() < 0.6 else None
        until = loop.time() + self._seconds
        for number in range(self._number):
            if number == at_switch:
                for place in range(self._partitions):
                    self._append(place, switch(rulesets[1], 2))
            self._one()
            if choices.random() < 0.5:
                left = (until - loop.time()) / (self._number - number)
                await asyncio.sleep(max(left, 0) * choices.uniform(0, 4))

    def tick(self) -> None:
        """Say on every partition that nothing comes."""
        for place in range(self._partitions):
            self._append(place, TICK)

    def _one(self) -> None:
        choices = self._choices
        if choices.random() < 0.1:
            self._append(choices.randrange(self._partitions), TICK)
            return
        if choices.random() < 0.04:
            self._append(choices.randrange(self._partitions), New(None, choices.choice(POISON)))
            return
        who = choices.choice(SERVICES)
        if choices.random() < 0.15:
            self._failing ^= {who}
        place = partition_of(*who, self._partitions)
        key: bytes | None = event_key(*who)
        if choices.random() < 0.12:
            place, key = choices.randrange(self._partitions), None
        if choices.random() < 0.1:
            events = [self._event(who), self._event(choices.choice(SERVICES))]
            self._append(place, New(key, json.dumps(events).encode()))
        else:
            self._append(place, New(key, json.dumps(self._event(who)).encode()))

    def _event(self, who: tuple[str, str]) -> dict[str, Any]:
        choices = self._choices
        now = START + int(asyncio.get_running_loop().time() * 1e6)
        ts = now + (choices.choice((-4_000_000, -700_000, 300_000, 2_000_000)) if choices.random() < 0.1 else 0)
        fails = choices.random() < (0.8 if who in self._failing else 0.1)
        return {
            "ts": ts, "kind": "operation", "tenant": who[0], "service": who[1], "tool": choices.choice(("read", "write")),
            "outcome": "tool_error" if fails else "ok", "dur_us": choices.choice((1, 5, 30, 90)),
            "weight": choices.choice((1, 1, 2)),
        }  # fmt: skip

    def _append(self, place: int, record: New) -> None:
        self._broker.append((EVENTS.name, place), [record])
