"""The groups of one rule in one partition. They live in machine code (native/groups.zig); here is what they have to tell."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from schemas.alert import RULE_FAILING, Reason, Transition
from streams import native
from streams.kernel.aggregates import Aggregate
from streams.kernel.columns import Bool, Columns, Float, Groups, Int
from streams.kernel.expression import mask
from streams.kernel.failing import Failed, Failure, decode_failure, encode_failure, failing_key, failing_transition
from streams.kernel.group import CELL_AT, GROUP_AT, Key, decode_key, slice_of
from streams.kernel.judge import Plan, Windows
from streams.kernel.lifecycle import Fired, Firing, Opening, Outcome, Raised, Resolved
from streams.kernel.slices import Reach
from streams.kernel.transition import Decider, make_transition


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a chunk that are folded: those in [start, end), of which `counted` bool[n] count here.

    `times` int64[n] is stream time after each row; `before` is stream time before row `start`.
    """

    columns: Columns
    start: int
    end: int
    counted: Bool
    times: Int
    before: int

    def decider(self, row: int, at: int) -> Decider:
        """Row `row`, deciding at stream time `at`."""
        columns = self.columns
        return Decider(int(columns.offset[row]), int(columns.index[row]), int(columns.append_time[row]), at)

    def by_record(self) -> Iterator[Rows]:
        """The rows of each record."""
        offsets = self.columns.offset[self.start : self.end]
        edges = [self.start, *(np.flatnonzero(np.diff(offsets)) + self.start + 1).tolist(), self.end]
        for start, end in pairwise(edges):
            before = self.before if start == self.start else int(self.times[start - 1])
            yield replace(self, start=start, end=end, before=before)


class Entry(NamedTuple):
    """A transition with its place among those of a chunk."""

    place: tuple[int, int, int, str, Key]
    transition: Transition


_BLOCK: Final = 256
"""Rows of a group that are judged one by one where they might change something; judging a block at once takes about as long as
judging 20 rows."""
_ITEM: Final = 4 * 8
"""Bytes of an item that is taken: where its key and its value stand, and their sizes."""
_NO_GROUPS: Final = Groups(np.empty(0, dtype=np.int64), b"", np.empty(0, dtype=np.int64))
_RESOLVED: Final = (Reason.RECOVERED, Reason.NO_DATA, Reason.RULE_REMOVED)
"""Why an episode ends, in the order of native/groups.zig."""


class DamagedStateError(ValueError):
    """A group or a slice is not stored as this version writes them."""


class RuleGroups:
    """One rule's groups in one partition. With a `failure` they stay as they are."""

    def __init__(self, plan: Plan, topic: str, partition: int, max_groups: int) -> None:
        self.plan = plan
        self.topic, self.partition, self.max_groups = topic, partition, max_groups
        self.failure: Failure | None = None
        self._dirty_failure = False
        self._entries: list[Entry] = []
        self._failed: list[Failed] = []
        self._native: int = native.library.tocsin_groups_new(plan.packed(max_groups, _BLOCK), plan.field is not None)
        weakref.finalize(self, native.library.tocsin_groups_free, self._native)

    def __len__(self) -> int:
        """How many groups there are."""
        count: int = native.library.tocsin_groups_count(self._native)
        return count

    # --- folding ---------------------------------------------------------------------------------------------------

    def fold(self, rows: Rows) -> None:
        """Close the slices that stream time passes, and count and judge the rows between.

        Where that raises, they are folded record by record, so that the rule fails at the record and not at the chunk.
        """
        if self.failure is not None or self._attempt(partial(self._fold, rows)) is None:
            return
        for record in rows.by_record():
            error = self._attempt(partial(self._fold, record))
            if error is not None:
                self._fail(error, record.decider(record.start, int(record.times[record.start])))
                return

    def tick(self, before: int, decider: Decider) -> None:
        """Close the slices that a tick passes, which moves stream time from `before` to that of `decider`."""
        if self.failure is not None or before // self.plan.every == decider.at // self.plan.every:
            return
        error = self._attempt(partial(self._close, before, decider))
        if error is not None:
            self._fail(error, decider)

    def _attempt(self, step: Callable[[], None]) -> Exception | None:
        """Take `step`; or leave everything as it was, and return why it cannot be taken."""
        told = len(self._entries)
        native.library.tocsin_groups_begin(self._native)
        try:
            step()
        except MemoryError:
            raise  # which says something about the machine, and nothing about the rule
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the other rules
            native.library.tocsin_groups_roll_back(self._native)
            del self._entries[told:]
            return error
        return None

    def _fail(self, error: Exception, decider: Decider) -> None:
        self.failure = Failure(decider.offset, decider.at, type(error).__name__)
        self._dirty_failure = True
        self._failed.append(Failed(self.plan.rule.name, decider.offset, error))
        self._tell_failing(self.failure, decider, Reason.RULE_FAILING)

    def _tell_failing(self, failure: Failure, decider: Decider, reason: Reason) -> None:
        rule, source = self.plan.rule, (self.topic, self.partition)
        transition = failing_transition(rule, self.plan.revision, failure, decider, reason, source)
        place = (decider.offset, decider.index, decider.at, RULE_FAILING, (rule.name,))
        self._entries.append(Entry(place, transition))

    def _fold(self, rows: Rows) -> None:
        columns, plan = rows.columns, self.plan
        touched, values = self.touched(rows)
        if not len(touched) and rows.before // plan.every == int(rows.times[rows.end - 1]) // plan.every:
            return
        of = None if plan.of is None else mask(plan.of, columns)
        groups = columns.groups(plan.rule.by) if len(touched) else _NO_GROUPS
        numbers = (columns.ts, columns.weight, columns.offset, columns.index, columns.append_time, rows.times, touched)
        folded = native.Rows(
            len(columns), rows.start, rows.end, rows.before, *(native.at(column, np.int64) for column in numbers), len(touched),
            None if of is None else native.at(of, np.bool_), None if values is None else native.at(values, np.float64),
            native.at(groups.codes, np.int64), groups.keys, native.at(groups.ends, np.int64), len(groups.ends),
        )  # fmt: skip
        self._tell_all(self._outcomes(native.library.tocsin_groups_fold, folded))

    def touched(self, rows: Rows) -> tuple[Int, Float | None]:
        """The rows that count for the rule, int64[k], and what it measures, float64 for all rows of the chunk."""
        plan, values = self.plan, None
        touching = rows.counted & mask(plan.rule.select, rows.columns)
        if plan.field is not None:
            values = rows.columns.number(plan.field)
            touching &= ~np.isnan(values)
        return np.flatnonzero(touching[rows.start : rows.end]) + rows.start, values

    def _close(self, before: int, decider: Decider) -> None:
        previous, current = before // self.plan.every, decider.at // self.plan.every
        self._tell_all(self._outcomes(native.library.tocsin_groups_close, previous, current, _decider(decider)))

    def _outcomes(self, step: Callable[..., int], *arguments: Any) -> Sequence[native.Outcome]:
        """What a step of machine code has to tell; good until its next one."""
        place = ctypes.c_void_p()
        count = step(self._native, *arguments, byref(place))
        return list((native.Outcome * count).from_address(place.value)) if place.value else []

    def _tell_all(self, outcomes: Sequence[native.Outcome]) -> None:
        for outcome in outcomes:
            self._tell(outcome)

    def _tell(self, said: native.Outcome) -> None:
        key = decode_key(ctypes.string_at(said.key, said.key_size))
        decider = Decider(said.decider.offset, said.decider.index, said.decider.append_time, said.at)
        episode = Firing(Opening(*said.opening), said.rank, said.ordinal)
        windows, reach = (_windows(said), Reach(*said.reach)) if said.has_windows else (None, None)
        source = (self.topic, self.partition)
        transition = make_transition(self.plan, key, episode, _outcome(said), decider, windows, reach, source)
        self._entries.append(Entry((decider.offset, decider.index, decider.at, self.plan.rule.name, key), transition))

    def take_entries(self) -> list[Entry]:
        """The transitions since the last call."""
        entries, self._entries = self._entries, []
        return entries

    def take_failed(self) -> list[Failed]:
        """The failures since the last call."""
        failed, self._failed = self._failed, []
        return failed

    def take_counts(self) -> tuple[int, int, int]:
        """Rows judged, late and overflowing since the last call."""
        counts = native.Counts()
        native.library.tocsin_groups_take_counts(self._native, counts)
        return counts.judged, counts.late, counts.overflow

    # --- rulesets --------------------------------------------------------------------------------------------------

    def end(self, decider: Decider, reason: Reason) -> None:
        """End every firing episode, forget every group, and say, for `reason`, that the rule does not fail any more."""
        for outcome in self._outcomes(native.library.tocsin_groups_end, _decider(decider), decider.at):
            try:
                self._tell(outcome)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - one that cannot be told must not keep the others from being told
                self._failed.append(Failed(self.plan.rule.name, decider.offset, error))
        if self.failure is not None:
            self._tell_failing(self.failure, decider, reason)
            self.failure, self._dirty_failure = None, True

    def continues(self, plan: Plan) -> bool:
        """Whether `plan` goes on with these groups: what it aggregates is the same, and it is not one that fails as it is."""
        if self.failure is not None:
            return self.plan.revision == plan.revision
        return self.plan.state_id == plan.state_id

    def replan(self, plan: Plan, stream_time: int) -> None:
        """Go on under another revision of the rule, which aggregates the same."""
        if self.failure is not None:
            return
        places = np.array([self._level(level.severity) for level in plan.rule.levels], dtype=np.int64)
        packed = plan.packed(self.max_groups, _BLOCK)
        native.library.tocsin_groups_replan(self._native, packed, native.at(places, np.int64), stream_time)
        self.plan = plan

    def _level(self, severity: str) -> int:
        return next((rank for rank, level in enumerate(self.plan.rule.levels) if level.severity == severity), -1)

    # --- the table -------------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> int:
        """How many keys `take_dirty` would write, at most."""
        count: int = native.library.tocsin_groups_dirty(self._native)
        return count + self._dirty_failure

    def take_dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The keys that changed since the last call, with their values; None where they are gone. No key comes twice."""
        taken = native.Taken()
        native.library.tocsin_groups_take(self._native, taken)
        if taken.count:
            data = ctypes.string_at(taken.data, taken.size)
            items = np.frombuffer(ctypes.string_at(taken.items, taken.count * _ITEM), dtype=np.int64).reshape(-1, 4)
            native.library.tocsin_groups_release(self._native)
            for key_at, key_size, value_at, value_size in items.tolist():
                yield data[key_at : key_at + key_size], None if value_size < 0 else data[value_at : value_at + value_size]
        if self._dirty_failure:
            self._dirty_failure = False
            yield failing_key(self.plan.state_id), None if self.failure is None else encode_failure(self.failure)

    def restore_group(self, table_key: bytes, value: bytes) -> None:
        """Take over a group as `take_dirty` wrote it. Raises DamagedStateError."""
        key = table_key[GROUP_AT:]
        if not native.library.tocsin_groups_restore_group(self._native, key, len(key), value, len(value)):
            raise DamagedStateError(f"rule {self.plan.rule.name}: group {key!r} is stored as {value!r}")

    def restore_cell(self, table_key: bytes, value: bytes) -> None:
        """Take over a slice; its group comes first. Raises DamagedStateError."""
        key, number = table_key[CELL_AT:], slice_of(table_key)
        if not native.library.tocsin_groups_restore_slice(self._native, key, len(key), number, value, len(value)):
            raise DamagedStateError(
                f"rule {self.plan.rule.name}: slice {number} of {key!r} is stored as {value!r}, or has no group"
            )

    def restore_failure(self, value: bytes) -> None:
        """Take over a failure."""
        self.failure = decode_failure(value)


def _decider(decider: Decider) -> native.Decider:
    return native.Decider(decider.offset, decider.index, decider.append_time)


def _outcome(said: native.Outcome) -> Outcome:
    if said.kind < 2:
        return (Fired, Raised)[said.kind](said.level)
    return Resolved(_RESOLVED[said.kind - 2])


def _windows(said: native.Outcome) -> Windows:
    baseline = (int(said.baseline_sum), said.baseline_count) if said.has_baseline else None
    return Windows(_aggregate(said.judged), _aggregate(said.full) if said.has_full else None, baseline, bool(said.boundary))


def _aggregate(held: native.Window) -> Aggregate:
    values = (int(value) for value in (held.sum, held.smallest, held.largest))
    return Aggregate(held.count, held.events, held.of, held.first_offset, held.last_offset, *values)
