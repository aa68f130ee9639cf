"""The engine and the notifier over the records of a golden file, by the code of now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from schemas.rule import Ruleset
from streams.decode import Source, decode
from streams.kernel.partition import PartitionState
from streams.notifier.cooldown import LocalCooldowns
from streams.notifier.partition import NotifierPartition
from streams.records import Outgoing
from streams.runtime.producer import INTERNAL, Items
from streams.runtime.staging import COMMIT, staged
from streams.testing import FakeClock
from tests.golden.files import KEY, PARTITION, PARTITIONS, to_text

SOURCE = Source("mcp.events", PARTITION, PARTITIONS, KEY)


def table_of(changelog: Items) -> dict[bytes, bytes]:
    """What a changelog amounts to, without the runtime's own rows."""
    table: dict[bytes, bytes] = {}

    def put(items: Items) -> None:
        for key, value in items:
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value

    for key, value in changelog:
        put([(key, value)])
        if key == COMMIT and value is not None:
            put(staged(value, table.get)[0])
    return {key: value for key, value in table.items() if not key.startswith(INTERNAL)}


class Engine:
    """The fold of an event partition."""

    def __init__(self, ruleset: Ruleset, table: dict[bytes, bytes]) -> None:
        self._rulesets = {ruleset.id: ruleset}
        self.state = PartitionState.restore(SOURCE.topic, SOURCE.partition, table.items(), self._rulesets)
        self.table = dict(table)
        self.transitions: list[str] = []
        self.sent: list[dict[str, Any]] = []
        """Dead letters and forwards."""

    def fold(self, records: Sequence[Any]) -> list[tuple[bytes, bytes | None]]:
        """Fold records, and save; what is written to the changelog."""
        decoded = decode(records, SOURCE)
        changes = self.state.apply(decoded.chunk, self._rulesets)
        self.transitions += [transition.model_dump_json() for transition in changes.transitions]
        letters = [letter.outgoing(SOURCE) for letter in decoded.dead_letters]
        self.sent += [outgoing_to_json(each) for each in (*letters, *(each.outgoing(SOURCE) for each in decoded.forwards))]
        items = self.state.take_dirty()
        self.table = table_of([*self.table.items(), *items])
        return items


class Notifier:
    """The fold of a partition of transitions, with cooldowns of its own; `at` is the time in microseconds."""

    def __init__(self, table: dict[bytes, bytes], at: int) -> None:
        self.clock = FakeClock(at)
        self._cooldowns = LocalCooldowns(self.clock, per_minute=10**6)
        self.table = dict(table)
        self.sent: list[dict[str, Any]] = []
        self.appended: list[tuple[bytes, bytes | None]] = []
        """What went to the changelog, in order."""
        self._fold = NotifierPartition.restore(
            "", PARTITION, table.items(), cooldowns=self._cooldowns, journal=self, clock=self.clock
        )

    @property
    def held(self) -> int:
        """How many firings are held back."""
        return self._fold.held_episodes

    async def append(self, _partition: int, items: Items) -> int:
        """Take in what the fold stores before it sends."""
        self.appended += items
        self.table = table_of([*self.table.items(), *items])
        return len(self.appended) - 1

    async def fold(self, records: Sequence[Any]) -> None:
        """Fold records; what was decided is sent, and not saved."""
        self._tell(await self._fold.process(records))

    async def wake(self, at: int) -> None:
        """Do what is due at a time."""
        self.clock.advance(at - self.clock())
        self._tell(await self._fold.wake(at))

    async def save(self) -> None:
        """Write a checkpoint."""
        await self.append(PARTITION, self._fold.take_dirty())

    def _tell(self, out: Iterable[Outgoing]) -> None:
        self.sent += [outgoing_to_json(each) for each in out]


def outgoing_to_json(outgoing: Outgoing) -> dict[str, Any]:
    """What is sent, as JSON."""
    headers = [[name, to_text(value)] for name, value in outgoing.headers]
    said = {"topic": outgoing.topic, "key": to_text(outgoing.key), "value": to_text(outgoing.value)}
    return said | {"headers": headers, "partition": outgoing.partition}
