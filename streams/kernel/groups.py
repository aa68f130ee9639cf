"""The groups of one rule: their slices and episodes, folded chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
import numpy as np

from schemas.alert import RULE_FAILING, Reason, Transition
from schemas.number import to_fixed
from streams.kernel.aggregates import Aggregate, merged
from streams.kernel.columns import Bool, Columns, Float, Int
from streams.kernel.distinct import by_member, distinct
from streams.kernel.expression import mask
from streams.kernel.failing import Failed, Failure, decode_failure, encode_failure, failing_key, failing_transition
from streams.kernel.group import Group, Key, cell_key, decode_group, encode_group, group_key
from streams.kernel.judge import Plan, Windows
from streams.kernel.lifecycle import Episode, Firing, Judgement, Opening, Resolved, advance
from streams.kernel.reduction import reduce_rows
from streams.kernel.slices import Reach, reach_at
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


class _Kept(NamedTuple):
    """A group as it was before the step that is being taken, with those of its slices that the step replaces (None: none).

    A slice that is in a group is replaced, never changed.
    """

    group: Group
    first_at: int
    last_at: int
    episode: Episode | None
    cells: dict[int, Aggregate | None]

    def put_back(self) -> Group:
        group, group.first_at, group.last_at, group.episode = self.group, self.first_at, self.last_at, self.episode
        for number, cell in self.cells.items():
            if cell is None:
                group.cells.pop(number, None)
            else:
                group.cells[number] = cell
        return group


class _Counted(NamedTuple):
    """The rows `touched` of one group, between which stream time passes no boundary, and the slices `numbers` they fall into.

    `of` bool[n] and `values` float64[n] are what a rule measures, for all rows of the chunk.
    """

    rows: Rows
    touched: Int
    numbers: Int
    of: Bool | None
    values: Float | None

    def blocks(self) -> Iterator[_Counted]:
        for start in range(0, len(self.touched), _BLOCK):
            yield self._replace(touched=self.touched[start : start + _BLOCK], numbers=self.numbers[start : start + _BLOCK])

    def reduced(self) -> dict[int, Aggregate]:
        one = np.zeros(len(self.touched), dtype=np.int64)
        return reduce_rows(self.rows.columns, self.touched, one, self.numbers, self.of, self.values)[0]


_BLOCK: Final = 256
"""Rows of a group that are judged one by one where they might change something; judging a block at once takes about as long as
judging 20 rows."""


class RuleGroups:
    """One rule's groups in one partition. With a `failure` they stay as they are."""

    def __init__(self, plan: Plan, topic: str, partition: int, max_groups: int) -> None:
        self.plan = plan
        self.topic, self.partition, self.max_groups = topic, partition, max_groups
        self.groups: dict[Key, Group] = {}
        self.failure: Failure | None = None
        self.late = 0
        self.overflow = 0
        self.judged = 0
        self._dirty_groups: set[Key] = set()
        self._dirty_cells: set[tuple[Key, int]] = set()
        self._dirty_failure = False
        self._entries: list[Entry] = []
        self._failed: list[Failed] = []
        self._kept: dict[Key, _Kept | None] = {}

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
        previous, current = before // self.plan.every, decider.at // self.plan.every
        if self.failure is not None or not self.groups or current == previous:
            return
        error = self._attempt(partial(self._close, previous, current, lambda at: replace(decider, at=at)))
        if error is not None:
            self._fail(error, decider)

    def _attempt(self, step: Callable[[], None]) -> Exception | None:
        """Take `step`; or leave everything as it was, and return why it cannot be taken."""
        counts, told = (self.judged, self.late, self.overflow), len(self._entries)
        self._kept.clear()
        try:
            step()
        except MemoryError:
            raise  # which says something about the machine, and nothing about the rule
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the other rules
            self.judged, self.late, self.overflow = counts
            del self._entries[told:]
            for key, kept in self._kept.items():
                if kept is None:
                    self.groups.pop(key, None)
                else:
                    self.groups[key] = kept.put_back()
            return error
        finally:
            self._kept.clear()
        return None

    def _keep(self, group: Group, numbers: Iterable[int] = ()) -> None:
        """Remember `group`, and its slices `numbers`, as they are before they change."""
        if group.key not in self._kept:
            self._kept[group.key] = _Kept(group, group.first_at, group.last_at, group.episode, {})
        kept = self._kept[group.key]
        if kept is not None:
            for number in numbers:
                kept.cells.setdefault(number, group.cells.get(number))

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
        current = rows.times // plan.every
        changes = np.flatnonzero(np.diff(current[rows.start : rows.end], prepend=rows.before // plan.every)) + rows.start
        touching = rows.counted & mask(plan.rule.select, columns)
        values = None
        if plan.field is not None:
            values = columns.number(plan.field)
            touching &= ~np.isnan(values)
        touched = np.flatnonzero(touching)
        touched = touched[np.searchsorted(touched, rows.start) : np.searchsorted(touched, rows.end)]
        if not len(touched) and not len(changes):
            return
        of = None if plan.of is None else mask(plan.of, columns)
        edges = [rows.start, *(change for change in changes.tolist() if change != rows.start), rows.end]
        previous = rows.before // plan.every
        for begin, end in pairwise(edges):
            now = int(current[begin])
            if now > previous:
                self._close(previous, now, partial(rows.decider, begin))
                previous = now
            inside = touched[np.searchsorted(touched, begin) : np.searchsorted(touched, end)]
            if len(inside):
                self._count(rows, inside, of, values, reach_at(now, plan.span, plan.baseline_span))

    def _close(self, previous: int, current: int, decider: Callable[[int], Decider]) -> None:
        """Judge every group at each boundary from slice `previous` to `current`, and forget the idle ones."""
        for group in list(self.groups.values()):
            self._keep(group)
            for number in range(previous + 1, current + 1):
                self._judge_boundary(group, reach_at(number, self.plan.span, self.plan.baseline_span), decider)
                if self._forget_if_idle(group, number):
                    break

    def _judge_boundary(self, group: Group, reach: Reach, decider: Callable[[int], Decider]) -> None:
        plan, at = self.plan, reach.current * self.plan.every
        full = group.window(reach.first - 1, reach.current) if plan.quantity and group.first_at <= at - plan.over else None
        judged = group.window(reach.first, reach.current + 1)
        self._judge(group, Windows(judged, full, self._baseline(group, reach), True), decider(at), reach)
        self._drop_slices(group, reach)

    def _drop_slices(self, group: Group, reach: Reach) -> None:
        gone = [number for number in group.cells if number < reach.baseline_first]
        if gone:
            self._keep(group, gone)
        for number in gone:
            del group.cells[number]
            self._dirty_cells.add((group.key, number))

    def _forget_if_idle(self, group: Group, number: int) -> bool:
        timing = self.plan.timing
        if group.episode is not None:
            return False
        if timing.ends_in_silence:
            if number * self.plan.every - group.last_at < timing.no_data_after:
                return False
        elif group.cells:
            return False
        self._forget(group)
        return True

    def _forget(self, group: Group) -> None:
        del self.groups[group.key]
        self._dirty_groups.add(group.key)
        self._dirty_cells.update((group.key, number) for number in group.cells)

    def _baseline(self, group: Group, reach: Reach) -> tuple[int, int] | None:
        if not self.plan.baseline_span:
            return None
        if group.episode is not None:
            return group.episode.baseline
        window = group.window(reach.baseline_first, reach.first)
        return window.sum, window.count

    def _count(self, rows: Rows, touched: Int, of: Bool | None, values: Float | None, reach: Reach) -> None:
        """Count the rows `touched`, between which stream time passes no boundary, group by group."""
        columns = rows.columns
        numbers = columns.ts[touched] // self.plan.every
        late = numbers < reach.baseline_first
        if late.any():
            self.late += int(late.sum())
            touched, numbers = touched[~late], numbers[~late]
        if not len(touched):
            return
        codes, keys = columns.groups(self.plan.rule.by)
        members, firsts = distinct(codes[touched])
        cells = reduce_rows(columns, touched, members, numbers, of, values)
        order, ends = by_member(members, len(firsts))
        for place, (first, end) in enumerate(zip(touched[firsts].tolist(), ends, strict=True)):
            mine = order[ends[place - 1] if place else 0 : end]
            key = keys[codes[first]]
            group = self.groups.get(key)
            if group is None:
                if len(self.groups) >= self.max_groups:
                    self.overflow += len(mine)
                    continue
                group = self.groups[key] = Group(key, int(rows.times[first]), 0)
                self._kept.setdefault(key, None)
            added = cells[place]
            self._keep(group, added)
            self.judged += len(mine)
            self._dirty_cells.update((key, number) for number in added)
            self._advance(_Counted(rows, touched[mine], numbers[mine], of, values), group, added, reach)
            self._dirty_groups.add(key)

    def _advance(self, counted: _Counted, group: Group, added: dict[int, Aggregate], reach: Reach) -> None:
        """Count rows of `group`, `added` as slices, and judge after each of them that may change something."""
        last = int(counted.rows.times[counted.touched[-1]])
        before = group.window(reach.first, reach.current + 1)
        inside = merged(cell for number, cell in added.items() if reach.first <= number <= reach.current)
        moves_baseline = self.plan.baseline_span > 0 and min(added) < reach.first
        if not moves_baseline and self.plan.cannot_change(group.episode, before, inside, self._baseline(group, reach), last):
            for number, cell in added.items():
                held = group.cells.get(number)
                if held is not None:
                    cell.merge(held)
                group.cells[number] = cell
        elif len(counted.touched) > _BLOCK:
            for block in counted.blocks():
                self._advance(block, group, block.reduced(), reach)
        else:
            self._walk(counted, group, reach, before)
        group.last_at = last

    def _walk(self, counted: _Counted, group: Group, reach: Reach, judged: Aggregate) -> None:
        """Count and judge the rows of one group one by one. `judged` is its judged window without them."""
        rows, columns = counted.rows, counted.rows.columns
        for number in set(counted.numbers.tolist()):
            held = group.cells.get(number)
            group.cells[number] = Aggregate() if held is None else merged((held,))
        for row, number in zip(counted.touched.tolist(), counted.numbers.tolist(), strict=True):
            event = (
                int(columns.offset[row]),
                int(columns.weight[row]),
                counted.of is not None and bool(counted.of[row]),
                None if counted.values is None else to_fixed(float(counted.values[row])),
            )
            group.cells[number].add(*event)
            if reach.first <= number <= reach.current:
                judged.add(*event)
            self._judge(
                group, Windows(judged, None, self._baseline(group, reach), False), rows.decider(row, int(rows.times[row])), reach
            )
            group.last_at = int(rows.times[row])

    def _judge(self, group: Group, windows: Windows, decider: Decider, reach: Reach) -> None:
        plan, before = self.plan, group.episode
        levels = plan.verdicts(windows)
        recovered = plan.recovered(windows, levels) if isinstance(before, Firing) else None
        judgement = Judgement(decider.at, levels, recovered, windows.boundary, group.last_at)
        group.episode, outcome = advance(
            before, judgement, plan.timing, Opening(decider.offset, decider.index, decider.at), windows.baseline
        )
        if group.episode is not before:
            self._dirty_groups.add(group.key)
        if outcome is not None:
            episode = before if isinstance(outcome, Resolved) else group.episode
            if not isinstance(episode, Firing):
                raise AssertionError("only firing episodes make transitions")
            self._tell(
                make_transition(plan, group.key, episode, outcome, decider, windows, reach, (self.topic, self.partition)),
                decider,
                group.key,
            )

    def _tell(self, transition: Transition, decider: Decider, key: Key) -> None:
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
        counts = self.judged, self.late, self.overflow
        self.judged = self.late = self.overflow = 0
        return counts

    # --- rulesets --------------------------------------------------------------------------------------------------

    def end(self, decider: Decider, reason: Reason) -> None:
        """End every firing episode, forget every group, and say, for `reason`, that the rule does not fail any more."""
        for group in list(self.groups.values()):
            if isinstance(group.episode, Firing):
                # An episode that cannot be told must not keep the others from being told.
                error = self._attempt(partial(self._resolve, group, group.episode, decider))
                if error is not None:
                    self._failed.append(Failed(self.plan.rule.name, decider.offset, error))
            self._forget(group)
        if self.failure is not None:
            self._tell_failing(self.failure, decider, reason)
            self.failure, self._dirty_failure = None, True

    def _resolve(self, group: Group, episode: Firing, decider: Decider) -> None:
        outcome, source = Resolved(Reason.RULE_REMOVED), (self.topic, self.partition)
        transition = make_transition(self.plan, group.key, episode, outcome, decider, None, None, source)
        self._tell(transition, decider, group.key)

    def continues(self, plan: Plan) -> bool:
        """Whether `plan` goes on with these groups: what it aggregates is the same, and it is not one that fails as it is."""
        if self.failure is not None:
            return self.plan.revision == plan.revision
        return self.plan.state_id == plan.state_id

    def replan(self, plan: Plan, decider: Decider) -> None:
        """Go on under another revision of the rule, which aggregates the same."""
        if self.failure is not None:
            return
        error = self._attempt(partial(self._replan, plan, decider.at))
        self.plan = plan
        if error is not None:
            self._fail(error, decider)

    def _replan(self, plan: Plan, stream_time: int) -> None:
        reach = reach_at(stream_time // self.plan.every, self.plan.span, self.plan.baseline_span)
        places = [self._level(level.severity) for level in plan.rule.levels]
        for group in self.groups.values():
            self._keep(group)
            self._drop_slices(group, reach)
            episode = group.episode
            if episode is None:
                continue
            since = tuple(None if place is None else episode.since[place] for place in places)
            group.episode = replace(episode, since=since)
            self._dirty_groups.add(group.key)

    def _level(self, severity: str) -> int | None:
        return next((rank for rank, level in enumerate(self.plan.rule.levels) if level.severity == severity), None)

    # --- the table -------------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> int:
        """How many keys `take_dirty` would write."""
        return len(self._dirty_groups) + len(self._dirty_cells) + self._dirty_failure

    def take_dirty(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The keys that changed since the last call, with their values; None where they are gone."""
        for key in sorted(self._dirty_groups):
            group = self.groups.get(key)
            yield group_key(self.plan.state_id, key), None if group is None else encode_group(group)
        for key, number in sorted(self._dirty_cells):
            group = self.groups.get(key)
            cell = None if group is None else group.cells.get(number)
            yield cell_key(self.plan.state_id, key, number), None if cell is None else msgspec.msgpack.encode(cell.encode())
        if self._dirty_failure:
            yield failing_key(self.plan.state_id), None if self.failure is None else encode_failure(self.failure)
        self._dirty_groups.clear()
        self._dirty_cells.clear()
        self._dirty_failure = False

    def restore_group(self, key: Key, value: bytes) -> None:
        """Take over a group as `take_dirty` wrote it."""
        self.groups[key] = decode_group(key, value)

    def restore_cell(self, key: Key, number: int, value: bytes) -> None:
        """Take over a slice; its group comes first."""
        self.groups[key].cells[number] = Aggregate.decode(msgspec.msgpack.decode(value))

    def restore_failure(self, value: bytes) -> None:
        """Take over a failure."""
        self.failure = decode_failure(value)
