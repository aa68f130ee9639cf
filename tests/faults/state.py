"""The state of a partition as the changelog holds it, cell by cell, and as the plain oracle has it.

The changelog is read here by its format (docs/semantics.md and streams/runtime/staging.py), not by the product's code.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import msgspec

from schemas.condition import SEVERITIES
from schemas.number import SCALE
from schemas.rule import fingerprint_of_aggregate
from tests.faults.log import Logged
from tests.kernel.log import Record
from tests.kernel.measuring import Accepted, Key, baseline_of, end_of_window
from tests.kernel.oracle import REMEMBERED, Episode, Group, Oracle, Place, RuleState

Table = dict[bytes, bytes]
Cells = dict[tuple[Any, ...], Any]
_INTERNAL: Final = b"\0"
_COMMIT: Final = b"\0parts"
_PART: Final = b"\0part/%08d"
_LIMB: Final = 10**18
_SLICE: Final = struct.Struct(">q")
_REDRIVEN: Final = struct.Struct(">Q")
_PRUNE: Final = 32


def fold_changelog(records: Iterable[Logged]) -> dict[int, Table]:
    """The last value of every key, by partition; a large checkpoint counts from its commit record on."""
    tables: dict[int, Table] = defaultdict(dict)
    for record in records:
        table = tables[record.partition]
        if record.key is None:
            continue
        _put(table, record.key, record.value)
        if record.key == _COMMIT and record.value is not None:
            for number in range(int(record.value)):
                for key, value in msgspec.msgpack.decode(table.get(_PART % number, b"\x90")):
                    _put(table, key, value)
    return {
        partition: {key: value for key, value in table.items() if not key.startswith(_INTERNAL)}
        for partition, table in tables.items()
    }


def _put(table: Table, key: bytes, value: bytes | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


@dataclass(frozen=True, slots=True)
class Marker:
    """How far a table goes, and what holds for the whole partition."""

    applied: int
    stream_time: int
    ruleset: str | None
    seq: int
    origins: Mapping[int, tuple[int, int]]


def marker_of(table: Table) -> Marker | None:
    """The marker of a table; None where nothing was saved."""
    if b"m" not in table:
        return None
    _, applied, stream_time, ruleset, seq, origins, *_ = msgspec.msgpack.decode(table[b"m"])
    return Marker(applied, stream_time, ruleset, seq, {partition: (offset, index) for partition, offset, index in origins})


class PrunedOracle(Oracle):
    """The plain oracle, which here forgets rows that have left every window, so that long logs are folded in time."""

    def judge(self, place: Place, state: RuleState, key: Key, group: Group, now: int, *, at_boundary: bool) -> Iterator[Any]:
        if len(group.rows) > _PRUNE:
            # The full window begins a slice before the judged one.
            start = (first_slice(state, now) - 2) * state.rule.every
            if min(row.ts for row in group.rows[:_PRUNE]) < start:
                group.rows = [row for row in group.rows if row.ts >= start]
        yield from super().judge(place, state, key, group, now, at_boundary=at_boundary)


def first_slice(state: RuleState, now: int) -> int:
    """The number of the first slice that the windows of a rule still reach."""
    rule = state.rule
    return (end_of_window(rule, now) - rule.over - baseline_of(rule)) // rule.every


def cells_of_table(table: Table, oracle: Oracle) -> Cells:
    """What a table says of groups, and of the slices that windows still reach, by rule, group and slice."""
    states = {bytes.fromhex(fingerprint_of_aggregate(state.rule)): (name, state) for name, state in oracle.states.items()}
    cells: Cells = {}
    for key, value in table.items():
        if key == b"m":
            continue
        if key[:1] == b"r":
            cells["redriven", *_REDRIVEN.unpack(key[1:])] = _SLICE.unpack(value)[0]
            continue
        name, state = states.get(key[1:9], (None, None))
        if state is None:
            cells["unknown rule", key] = value
            continue
        held = msgspec.msgpack.decode(value)
        if key[:1] == b"f":
            cells["failing", name] = held
        elif key[:1] == b"g":
            cells[name, tuple(msgspec.json.decode(key[9:]))] = held
        else:
            number = _SLICE.unpack(key[9:17])[0]
            if number >= first_slice(state, oracle.stream_time):
                cells[name, tuple(msgspec.json.decode(key[17:])), number] = held
    return cells


def cells_of_oracle(oracle: Oracle) -> Cells:
    """The same by the oracle, in the form that the table has."""
    oldest = oracle.stream_time - REMEMBERED
    cells: Cells = {("redriven", offset): appended for offset, appended in oracle.redriven.items() if appended > oldest}
    for name, state in oracle.states.items():
        first = first_slice(state, oracle.stream_time)
        if state.failure is not None:
            cells["failing", name] = [state.failure.offset, state.failure.at, state.failure.error]
        for key, group in state.groups.items():
            cells[name, key] = _group(state, group)
            slices: dict[int, list[Accepted]] = defaultdict(list)
            for row in group.rows:
                slices[row.ts // state.rule.every].append(row)
            for number, rows in slices.items():
                if number >= first:
                    cells[name, key, number] = _cell(rows)
    return cells


def _group(state: RuleState, group: Group) -> list[Any]:
    held: list[Any] = [group.first_at, group.last_at]
    if group.episode is not None:
        held += _episode(state, group.episode)
    return held


def _episode(state: RuleState, episode: Episode) -> list[Any]:
    since = [episode.since.get(level.severity) for level in state.rule.levels]
    baseline = None
    if episode.baseline is not None:
        baseline = [*divmod(_units(episode.baseline[0]), _LIMB), episode.baseline[1]]
    held: list[Any] = [[episode.offset, episode.index, episode.opened_at], since, baseline, episode.valued_at]
    if episode.severity is not None:
        held += [SEVERITIES.index(episode.severity), episode.recovering, episode.ordinal]
    return held


def _cell(rows: list[Accepted]) -> list[Any]:
    values = [_units(row.value) for row in rows]
    extremes: list[Any] = [None, None]
    if any(values) or any(row.value for row in rows):
        extremes = [list(divmod(min(values), _LIMB)), list(divmod(max(values), _LIMB))]
    return [
        sum(row.weight for row in rows),
        len(rows),
        min(row.offset for row in rows),
        max(row.offset for row in rows),
        sum(row.weight for row in rows if row.of),
        *divmod(sum(row.weight * value for row, value in zip(rows, values, strict=True)), _LIMB),
        *extremes,
    ]


def _units(value: Fraction) -> int:
    return int(value * SCALE)


def log_up_to(records: list[Record], offset: int) -> list[Record]:
    """The records at or below an offset."""
    return [record for record in records if record.offset <= offset]
