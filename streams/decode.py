"""Raw records to columns, dead letters and forwards. Whatever the bytes are, nothing is raised past `decode`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec import UNSET, UnsetType
from pydantic import ValidationError

from schemas.control import HEADER, Forward, Redrive, RulesetRecord, Tick, is_signed, parse_control, sign
from schemas.dead_letter import DeadReason, Stage, dead_letter_headers, kept
from schemas.event import Event
from schemas.time import MICROS, TimestampError, to_event_time
from streams.kernel.columns import Chunk, Columns, Int, Origin, Redriven, Step, SwitchStep, TickStep
from streams.partitioner import event_key, partition_of
from streams.records import Incoming, Outgoing
from streams.topics import DEAD_LETTERS, EVENTS, MAX_RECORD
from streams.wire import FAILURES, Problem, elements, first_line, parse_values

MAX_FUTURE: Final = 300 * MICROS
_DEFAULT_TENANT: Final = Event.model_fields["tenant"].default
_DEFAULT_WEIGHT: Final = Event.model_fields["weight"].default


@dataclass(frozen=True, slots=True)
class Source:
    """A partition of the event topic as it is read.

    `topic` is its full name on the broker, `partitions` how many it has. With `control_key` None, rulesets and forwards need
    no MAC.
    """

    topic: str
    partition: int
    partitions: int
    control_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be processed, whole, and why."""

    record: Incoming
    stage: Stage
    reason: DeadReason
    message: str

    def outgoing(self, source: Source) -> Outgoing:
        """What is sent to the dead letters: the record as it was, with where it came from and why in its headers."""
        key, value, held = kept(self.record.key, self.record.value, tuple(self.record.headers))
        headers = dead_letter_headers(
            held, topic=source.topic, partition=source.partition, offset=self.record.offset,
            timestamp=self.record.timestamp, stage=self.stage, reason=self.reason, message=self.message,
        )  # fmt: skip
        return Outgoing(DEAD_LETTERS.name, key, value, headers)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An event found at `origin` that belongs to `partition`: `value` is its JSON object as it was written."""

    partition: int
    key: bytes
    value: bytes
    origin: Origin

    def outgoing(self, source: Source) -> Outgoing:
        """What is sent to the partition of the event: the event, with its origin in a header, signed where there is a key."""
        control = Forward(partition=self.origin.partition, offset=self.origin.offset, index=self.origin.index)
        if source.control_key:
            control = sign(control, source.control_key, topic=source.topic, partition=self.partition, value=self.value)
        return Outgoing(EVENTS.name, self.key, self.value, ((HEADER, control.model_dump_json().encode()),), self.partition)


class Counts(NamedTuple):
    """How much was decoded. `strict` counts the records that were parsed twice: unknown fields, escapes, errors."""

    records: int = 0
    bytes: int = 0
    events: int = 0
    strict: int = 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a run of records holds. `dead_letters` and `forwards` are in the order of the log."""

    chunk: Chunk
    dead_letters: tuple[DeadLetter, ...]
    forwards: tuple[Forwarded, ...]
    counts: Counts


def decode(records: Sequence[Incoming], source: Source) -> Decoded:
    """`records`, in offset order, as a chunk. Raises nothing: a record that cannot be processed is a dead letter."""
    steps: list[Step] = []
    dead: list[DeadLetter] = []
    forwards: list[Forwarded] = []
    run = _Run([], {}, {})
    size = strict = 0

    def close(run: _Run) -> None:
        nonlocal strict
        if run.records:
            part = _decode_run(run, source)
            strict += part.strict
            dead.extend(DeadLetter(run.records[at], *problem) for at, problem in part.problems.items())
            forwards.extend(part.forwards)
            if len(part.columns):
                steps.append(part.columns)

    for record in records:
        value = record.value
        length = len(value) if value else 0
        size += length
        said = _control_of(record, source) if record.headers else None
        if length > MAX_RECORD:
            said = Problem("decode", DeadReason.OVERSIZED, f"the value has {length} bytes, and {MAX_RECORD} are allowed")
        elif not length and (said is None or isinstance(said, Origin | Redriven)):
            said = Problem("decode", DeadReason.EMPTY, "the record has no value")
        if said is None:
            run.records.append(record)
        elif isinstance(said, Problem):
            dead.append(DeadLetter(record, *said))
        elif isinstance(said, Origin):
            run.origins[len(run.records)] = said
            run.records.append(record)
        elif isinstance(said, Redriven):
            run.redriven[len(run.records)] = said
            run.records.append(record)
        else:
            close(run)
            run = _Run([], {}, {})
            steps.append(said)
    close(run)
    events = sum(len(step) for step in steps if isinstance(step, Columns))
    return Decoded(
        Chunk(tuple(steps), records[-1].offset if records else -1),
        tuple(sorted(dead, key=lambda letter: letter.record.offset)),
        tuple(forwards),
        Counts(len(records), size, events, strict),
    )


# --- control records -----------------------------------------------------------------------------------------------


def _control_of(record: Incoming, source: Source) -> TickStep | SwitchStep | Origin | Redriven | Problem | None:
    """What the header `tocsin` of a record says; None where there is none."""
    headers = [value for name, value in record.headers if name == HEADER]
    if not headers:
        return None
    if len(headers) > 1:
        return _bad_control(f"the header `{HEADER}` occurs {len(headers)} times")
    try:
        control = parse_control(headers[0])
    except FAILURES as error:
        return _bad_control(f"the header `{HEADER}` is no control record: {_first_error(error)}")
    if isinstance(control, Tick):
        return TickStep(record.offset, record.timestamp * 1000)
    if isinstance(control, Forward) and control.partition >= source.partitions:
        return _bad_control(f"the origin is partition {control.partition}, and there are {source.partitions}")
    key, value = source.control_key, record.value or b""
    if key and not is_signed(control, key, topic=source.topic, partition=source.partition, value=value):
        fault = "has a MAC that is wrong for this key, partition or value" if control.mac else "has no MAC"
        message = f"the {control.control} record {fault}; is TOCSIN_CONTROL_KEY the same everywhere?"
        return Problem("control", DeadReason.UNSIGNED, message)
    if isinstance(control, RulesetRecord):
        return SwitchStep(record.offset, record.timestamp * 1000, control.id, control.seq)
    if isinstance(control, Redrive):
        if control.offset >= record.offset:
            return _bad_control(f"the origin is offset {control.offset}, and the record stands at {record.offset}")
        return Redriven(control.offset, control.timestamp * 1000)
    return Origin(control.partition, control.offset, control.index)


def _bad_control(message: str) -> Problem:
    return Problem("control", DeadReason.BAD_CONTROL, message)


def _first_error(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else first["msg"]


# --- events --------------------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """Records that hold events.

    `origins` has those that were forwarded here, `redriven` those that were dead letters, by their place in `records`.
    """

    records: list[Incoming]
    origins: dict[int, Origin]
    redriven: dict[int, Redriven]


class _Part(NamedTuple):
    """A run decoded. `problems` says what is wrong with the records that were left out, by their place."""

    columns: Columns
    problems: dict[int, Problem]
    forwards: list[Forwarded]
    strict: int


def _decode_run(run: _Run, source: Source) -> _Part:
    records, origins, redriven = run
    values = [record.value or b"" for record in records]
    found, problems, strict = parse_values(values)
    for at in origins:
        if isinstance(found[at], list) and at not in problems:
            problems[at], found[at] = _bad_control("a forwarded record holds one event, and this one holds an array"), []
    events, place, index = _rows(found)
    tenants = _defaulted(events, "tenant", _DEFAULT_TENANT)
    weights = _defaulted(events, "weight", _DEFAULT_WEIGHT)
    problem_at = _Where(found, place, index, problems)
    ts = np.array(_times(events, problem_at), dtype=np.int64)
    append_time = np.array([record.timestamp for record in records], dtype=np.int64)[place] * 1000
    for row in np.flatnonzero(ts > append_time + MAX_FUTURE).tolist():
        ahead = (ts[row] - append_time[row]) / MICROS
        message = f"ts lies {ahead:,.0f} s after the time at which the record was appended; at most 300 s are allowed"
        problem_at.add(row, DeadReason.FUTURE, message)
    home = _homes(tenants, [event.service for event in events], source)
    for row in np.flatnonzero(np.isin(place, list(origins)) & (home != source.partition)).tolist() if origins else ():
        message = f"the forwarded event belongs to partition {home[row]}, not to this one"
        problems.setdefault(int(place[row]), Problem("control", DeadReason.MISROUTED, message))
    weight = np.array(weights, dtype=np.int64)
    if problems:
        kept = ~np.isin(place, list(problems))
        events = [event for event, keep in zip(events, kept.tolist(), strict=True) if keep]
        place, index, ts, append_time, home, weight = (column[kept] for column in (place, index, ts, append_time, home, weight))
    columns = Columns(
        events=events,
        offset=np.array([record.offset for record in records], dtype=np.int64)[place],
        index=index,
        append_time=append_time,
        ts=ts,
        weight=weight,
        local=home == source.partition,
        origins={row: origins[at] for row, at in enumerate(place.tolist()) if at in origins} if origins else {},
        redriven={row: redriven[at] for row, at in enumerate(place.tolist()) if at in redriven} if redriven else {},
    )
    return _Part(columns, problems, _forwards(columns, place, home, values, source), strict)


def _rows(found: list[Any]) -> tuple[list[Any], Int, Int]:
    """One row per event, with the place of its record in `found` and its index in the record."""
    if list not in set(map(type, found)):
        return found, np.arange(len(found), dtype=np.int64), np.zeros(len(found), dtype=np.int64)
    lengths = [len(each) if type(each) is list else 1 for each in found]
    events = list(itertools.chain.from_iterable([each if type(each) is list else (each,) for each in found]))
    place = np.repeat(np.arange(len(found), dtype=np.int64), lengths)
    first = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    return events, place, np.arange(len(place), dtype=np.int64) - first[place]


def _defaulted(events: list[Any], name: str, default: Any) -> list[Any]:
    """The values of a field, with `default` set in the events where it was absent."""
    values = [getattr(event, name) for event in events]
    if UnsetType in set(map(type, values)):
        for row, value in enumerate(values):
            if value is UNSET:
                values[row] = default
                setattr(events[row], name, default)
    return values


class _Where(NamedTuple):
    """Where the rows of a run come from, and what is wrong with their records. The first problem of a record stands."""

    found: list[Any]
    place: Int
    element: Int
    problems: dict[int, Problem]

    def add(self, row: int, reason: DeadReason, message: str) -> None:
        at = int(self.place[row])
        path = f"$[{self.element[row]}].ts" if isinstance(self.found[at], list) else "$.ts"
        self.problems.setdefault(at, Problem("validate", reason, f"{message} - at `{path}`"))


def _times(events: list[Any], problem_at: _Where) -> list[int]:
    """Event times in microseconds. Those that were text are set in the events too."""
    times = [event.ts for event in events]
    if str in set(map(type, times)):
        for row, time in enumerate(times):
            if isinstance(time, str):
                try:
                    times[row] = events[row].ts = to_event_time(time)
                except TimestampError as error:
                    times[row] = 0
                    problem_at.add(row, DeadReason.ILL_TYPED, str(error))
    return times


def _homes(tenants: list[str], services: list[str], source: Source) -> Int:
    """The partition that each event belongs to."""
    keys = list(zip(tenants, services, strict=True))
    homes = {key: partition_of(*key, source.partitions) for key in set(keys)}
    if all(home == source.partition for home in homes.values()):
        return np.full(len(keys), source.partition, dtype=np.int64)
    return np.array([homes[key] for key in keys], dtype=np.int64)


def _forwards(columns: Columns, place: Int, home: Int, values: list[bytes], source: Source) -> list[Forwarded]:
    """The events of other partitions, in the order of the log."""
    forwards: list[Forwarded] = []
    parsed, objects = -1, [b""]
    for row in np.flatnonzero(~columns.local).tolist():
        at, index, event = int(place[row]), int(columns.index[row]), columns.events[row]
        if at != parsed:
            value = values[at]
            parsed, objects = at, elements(value) if value.lstrip()[:1] == b"[" else [value]
        origin = Origin(source.partition, int(columns.offset[row]), index)
        forwards.append(Forwarded(int(home[row]), event_key(event.tenant, event.service), objects[index], origin))
    return forwards
