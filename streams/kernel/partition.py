"""One partition of the event topic: the fold that everything else serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from schemas.alert import Reason, Transition
from schemas.dead_letter import DeadReason
from schemas.rule import Ruleset
from streams.kernel.columns import Bool, Chunk, Columns, Int, Origin, SwitchStep, TickStep
from streams.kernel.failing import FAILING, Failed
from streams.kernel.group import CELL, GROUP, state_id_of
from streams.kernel.groups import Entry, Rows, RuleGroups
from streams.kernel.judge import Plan
from streams.kernel.redriven import MAX_REDRIVEN, REDRIVEN, Admission, RedrivenOrigins
from streams.kernel.slices import stream_times, tick_time
from streams.kernel.state_version import check_state_version
from streams.kernel.transition import Decider

MARKER: Final = b"m"
VERSION: Final = 1
MAX_GROUPS: Final = 100_000
_KEY_BYTES: Final = 160
"""About what a dirty key and its value take in the changelog."""


class MissingRulesetError(LookupError):
    """The state was written under a ruleset that is not at hand."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a chunk did, beside the state: transitions in order, and counts. `late` and `overflow` are by rule name.

    `repeated` has the offsets of redriven records that had been counted before, `refused` those that cannot be counted.
    """

    transitions: tuple[Transition, ...] = ()
    counted: int = 0
    duplicates: int = 0
    judged: int = 0
    late: dict[str, int] = field(default_factory=dict)
    overflow: dict[str, int] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    repeated: frozenset[int] = frozenset()
    refused: Mapping[int, DeadReason] = field(default_factory=dict)
    failed: tuple[Failed, ...] = ()


class _Tally:
    """Counts and failures of the rules, also of those that go within a chunk."""

    def __init__(self) -> None:
        self.failed: list[Failed] = []
        self.judged = 0
        self.late: Counter[str] = Counter()
        self.overflow: Counter[str] = Counter()

    def add(self, groups: RuleGroups) -> None:
        judged, late, overflow = groups.take_counts()
        self.judged += judged
        self.failed += groups.take_failed()
        for counter, number in ((self.late, late), (self.overflow, overflow)):
            if number:
                counter[groups.plan.rule.name] += number


class PartitionState:
    """The state of one partition: `apply` folds chunks into it, `take_dirty` gives what changed, `restore` brings it back."""

    def __init__(self, topic: str, partition: int, max_groups: int = MAX_GROUPS, max_redriven: int = MAX_REDRIVEN) -> None:
        self.topic, self.partition, self.max_groups = topic, partition, max_groups
        self.applied = -1
        self.stream_time = 0
        self.ruleset_id: str | None = None
        self.ruleset_seq = 0
        self._origins: dict[int, tuple[int, int]] = {}
        self._redriven = RedrivenOrigins(max_redriven)
        self._rules: dict[str, RuleGroups] = {}
        self._gone: list[tuple[bytes, None]] = []

    # --- folding ---------------------------------------------------------------------------------------------------

    def apply(self, chunk: Chunk, rulesets: Mapping[str, Ruleset]) -> Changes:
        """Fold `chunk`. Records at or below `applied` are skipped; a ruleset that is not in `rulesets` changes nothing."""
        counted = duplicates = 0
        unreadable = []
        admitted: dict[int, Admission] = {}
        entries: list[Entry] = []
        tally = _Tally()
        for step in chunk.steps:
            match step:
                case Columns():
                    here, twice = self._apply_events(step, admitted)
                    counted, duplicates = counted + here, duplicates + twice
                case TickStep(offset=offset) if offset > self.applied:
                    self._apply_tick(step)
                case SwitchStep(offset=offset) if offset > self.applied and step.seq > self.ruleset_seq:
                    self.ruleset_seq = step.seq
                    plans = _plans_of(rulesets.get(step.ruleset))
                    if plans is not None:
                        entries += self._switch(plans, step, tally)
                    else:
                        unreadable.append(step.ruleset)
                case SwitchStep(offset=offset) if offset > self.applied and step.seq == self.ruleset_seq:
                    entries += self._restart_failing(step, tally)
        self.applied = max(self.applied, chunk.last_offset)
        self._redriven.forget(self.stream_time)
        for groups in self._rules.values():
            entries += groups.take_entries()
            tally.add(groups)
        entries.sort(key=lambda entry: entry.place)
        transitions = tuple(entry.transition for entry in entries)
        return Changes(
            transitions, counted, duplicates, tally.judged, dict(tally.late), dict(tally.overflow), tuple(unreadable),
            frozenset(offset for offset, said in admitted.items() if said == "seen"),
            {offset: said for offset, said in admitted.items() if isinstance(said, DeadReason)},
            tuple(tally.failed),
        )  # fmt: skip

    def _apply_events(self, columns: Columns, admitted: dict[int, Admission]) -> tuple[int, int]:
        start = int(np.searchsorted(columns.offset, self.applied, side="right"))
        if start == len(columns):
            return 0, 0
        counted = columns.local.copy()
        counted[:start] = False
        times = np.empty(len(columns), dtype=np.int64)
        times[:start] = self.stream_time
        times[start:] = stream_times(columns.ts[start:], columns.append_time[start:], self.stream_time)
        duplicates = self._mark_origins(columns, start, counted) + self._admit(columns, start, counted, times, admitted)
        rows = Rows(columns, start, len(columns), counted, times, self.stream_time)
        for groups in self._rules.values():
            groups.fold(rows)
        self.stream_time = int(times[-1])
        return int(counted.sum()), duplicates

    def _mark_origins(self, columns: Columns, start: int, counted: Bool) -> int:
        """Clear the rows in `counted` that were forwarded here before, and move the markers of their origins."""
        duplicates = 0
        for row, origin in sorted(columns.origins.items()):
            if row < start:
                continue
            if self._seen(origin):
                counted[row] = False
                duplicates += 1
            else:
                self._origins[origin.partition] = (origin.offset, origin.index)
        return duplicates

    def _admit(self, columns: Columns, start: int, counted: Bool, times: Int, admitted: dict[int, Admission]) -> int:
        """Clear the rows in `counted` of redriven records that do not count. A record is admitted whole, at its first row."""
        duplicates = 0
        for row, origin in sorted(columns.redriven.items()) if columns.redriven else ():
            if row < start:
                continue
            offset = int(columns.offset[row])
            if offset not in admitted:
                admitted[offset] = self._redriven.admit(origin, int(times[row]))
            if admitted[offset] != "new":
                counted[row] = False
                duplicates += admitted[offset] == "seen"
        return duplicates

    def _seen(self, origin: Origin) -> bool:
        return (origin.offset, origin.index) <= self._origins.get(origin.partition, (-1, -1))

    def _apply_tick(self, tick: TickStep) -> None:
        after = max(self.stream_time, tick_time(tick.append_time))
        for groups in self._rules.values():
            groups.tick(self.stream_time, Decider(tick.offset, 0, tick.append_time, after))
        self.stream_time = after

    def _switch(self, plans: list[Plan], step: SwitchStep, tally: _Tally) -> list[Entry]:
        decider = Decider(step.offset, 0, step.append_time, self.stream_time)
        entries: list[Entry] = []
        before, self._rules = self._rules, {}
        for plan in plans:
            name = plan.rule.name
            held = before.get(name)
            if held is not None and held.continues(plan):
                held.replan(plan, decider.at)
                self._rules[name] = before.pop(name)
            else:
                self._rules[name] = RuleGroups(plan, self.topic, self.partition, self.max_groups)
        for name, groups in before.items():
            entries += self._end(groups, decider, Reason.RECOVERED if name in self._rules else Reason.RULE_REMOVED, tally)
        self.ruleset_id = step.ruleset
        return entries

    def _restart_failing(self, step: SwitchStep, tally: _Tally) -> list[Entry]:
        """The active ruleset was deployed again: what fails starts anew."""
        decider = Decider(step.offset, 0, step.append_time, self.stream_time)
        entries: list[Entry] = []
        for name, groups in self._rules.items():
            if groups.failure is not None and step.ruleset == self.ruleset_id:
                entries += self._end(groups, decider, Reason.RECOVERED, tally)
                self._rules[name] = RuleGroups(groups.plan, self.topic, self.partition, self.max_groups)
        return entries

    def _end(self, groups: RuleGroups, decider: Decider, reason: Reason, tally: _Tally) -> list[Entry]:
        groups.end(decider, reason)
        tally.add(groups)
        self._gone += [(key, None) for key, _ in groups.take_dirty()]
        return groups.take_entries()

    @property
    def group_count(self) -> int:
        """Groups of all rules."""
        return sum(len(groups) for groups in self._rules.values())

    @property
    def failing(self) -> tuple[str, ...]:
        """The rules that fail here."""
        return tuple(name for name, groups in self._rules.items() if groups.failure is not None)

    # --- the table -------------------------------------------------------------------------------------------------

    @property
    def dirty_bytes(self) -> int:
        """About how many bytes `take_dirty` would return."""
        return _KEY_BYTES * (1 + len(self._gone) + self._redriven.dirty + sum(groups.dirty for groups in self._rules.values()))

    def take_dirty(self) -> list[tuple[bytes, bytes | None]]:
        """Every key that changed since the last call with its value (None: gone), the marker among them. No key comes twice."""
        changed = [item for groups in self._rules.values() for item in groups.take_dirty()]
        if self._gone:  # a rule that went may have come again, with the same keys
            changed = list(dict([*self._gone, *changed]).items())
            self._gone = []
        return [*changed, *self._redriven.take_dirty(), self._marker()]

    @staticmethod
    def ruleset_of(items: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The ruleset that the table `items` were written under, which `restore` needs. Raises StateVersionError."""
        marker = dict(items).get(MARKER)
        found: str | None = None if marker is None else _unpack_marker(marker)[2]
        return found

    @classmethod
    def restore(
        cls,
        topic: str,
        partition: int,
        items: Iterable[tuple[bytes, bytes]],
        rulesets: Mapping[str, Ruleset],
        max_groups: int = MAX_GROUPS,
        max_redriven: int = MAX_REDRIVEN,
    ) -> PartitionState:
        """The state that the table `items` hold.

        Raises MissingRulesetError without the ruleset it was written under, StateVersionError where another release wrote it.
        """
        state = cls(topic, partition, max_groups, max_redriven)
        held = dict(items)
        marker = held.pop(MARKER, None)
        if marker is None:
            return state
        state.applied, state.stream_time, state.ruleset_id, state.ruleset_seq, origins = _unpack_marker(marker)
        state._origins = {origin: (offset, index) for origin, offset, index in origins}
        for key, value in held.items():
            if key[:1] == REDRIVEN:
                state._redriven.restore(key, value)
        if state.ruleset_id is None:
            return state
        if state.ruleset_id not in rulesets:
            raise MissingRulesetError(state.ruleset_id)
        for rule in rulesets[state.ruleset_id].rules:
            state._rules[rule.name] = RuleGroups(Plan(rule), topic, partition, max_groups)
        state._restore_groups(held)
        return state

    def _restore_groups(self, held: Mapping[bytes, bytes]) -> None:
        by_id = {groups.plan.state_id: groups for groups in self._rules.values()}
        for table_key, value in held.items():
            if table_key[:1] == GROUP:
                by_id[state_id_of(table_key)].restore_group(table_key, value)
        for table_key, value in held.items():
            if table_key[:1] == CELL:
                by_id[state_id_of(table_key)].restore_cell(table_key, value)
            elif table_key[:1] == FAILING:
                by_id[state_id_of(table_key)].restore_failure(value)

    def _marker(self) -> tuple[bytes, bytes]:
        origins = [(origin, *place) for origin, place in sorted(self._origins.items())]
        held: list[Any] = [VERSION, self.applied, self.stream_time, self.ruleset_id, self.ruleset_seq, origins]
        return MARKER, msgspec.msgpack.encode(held)


def _plans_of(ruleset: Ruleset | None) -> list[Plan] | None:
    """The rules of `ruleset`, ready to be judged; None where it is not at hand, or one of them cannot be prepared."""
    if ruleset is None:
        return None
    try:
        return [Plan(rule) for rule in ruleset.rules]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the ruleset that is active goes on
        return None


def _unpack_marker(value: bytes) -> list[Any]:
    version, *fields = msgspec.msgpack.decode(value, type=list[Any])
    check_state_version(version, (VERSION,), "engine")
    return fields
