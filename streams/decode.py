"""Raw records to columns, dead letters and forwards. Whatever the bytes are, nothing is raised past `decode`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from msgspec import UNSET
from pydantic import ValidationError

from schemas.control import HEADER, Forward, Redrive, RulesetRecord, Tick, is_signed, parse_control, sign
from schemas.dead_letter import MAX_HEADER_COUNT, DeadReason, Stage, dead_letter_headers, kept
from schemas.expression import FieldReference
from schemas.time import MICROS, TimestampError, to_event_time
from streams.fetched import Fetched
from streams.fields import DEFAULTS, JoinedFields, ScannedFields
from streams.kernel.columns import (
    Bool,
    Chunk,
    Columns,
    Fields,
    Int,
    Origin,
    Redriven,
    Step,
    Structs,
    SwitchStep,
    TickStep,
)
from streams.partitioner import event_key, partition_of
from streams.records import Incoming, Outgoing
from streams.scanner import Scanned, scan
from streams.topics import DEAD_LETTERS, EVENTS, MAX_RECORD
from streams.wire import FAILURES, Problem, elements, first_line, parse_values

MAX_FUTURE: Final = 300 * MICROS
_TENANT: Final = FieldReference(field="tenant")
_SERVICE: Final = FieldReference(field="service")
_DEFAULT_WEIGHT: Final[int] = DEFAULTS["weight"]


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
    fetched = Fetched.of(records)
    sizes = fetched.value_size
    found = _Found(_unusable(sizes), {}, {}, {})
    for place in fetched.with_headers():
        said = _control_of(fetched[place], source)
        if said is not None and (sizes[place] <= MAX_RECORD):
            found.add(place, said)
    is_event = np.ones(len(fetched), dtype=np.bool_)
    is_event[[*found.problems, *found.steps]] = False
    steps: list[Step] = []
    forwards: list[Forwarded] = []
    strict = 0
    first = 0
    for place in [*sorted(found.steps), len(fetched)]:
        places = np.flatnonzero(is_event[first:place]) + first
        if len(places):
            part = _decode_run(fetched, places, found, source)
            strict += part.strict
            found.problems.update(part.problems)
            forwards.extend(part.forwards)
            if len(part.columns):
                steps.append(part.columns)
        if place in found.steps:
            steps.append(found.steps[place])
        first = place + 1
    events = sum(len(step) for step in steps if isinstance(step, Columns))
    dead = sorted(found.problems)
    return Decoded(
        Chunk(tuple(steps), int(fetched.offsets[-1]) if len(fetched) else -1),
        tuple(DeadLetter(record, *found.problems[place]) for place, record in zip(dead, fetched.records(dead), strict=True)),
        tuple(forwards),
        Counts(len(fetched), int(sizes[sizes > 0].sum()), events, strict),
    )


class _Found(NamedTuple):
    """What records are besides events, by their place: what is wrong with them, what they do, where they come from."""

    problems: dict[int, Problem]
    steps: dict[int, TickStep | SwitchStep]
    origins: dict[int, Origin]
    redriven: dict[int, Redriven]

    def add(self, place: int, said: TickStep | SwitchStep | Origin | Redriven | Problem) -> None:
        if isinstance(said, Origin):
            self.origins[place] = said
        elif isinstance(said, Redriven):
            self.redriven[place] = said
        else:
            self.problems.pop(place, None)  # they need no value
            if isinstance(said, Problem):
                self.problems[place] = said
            else:
                self.steps[place] = said


def _unusable(sizes: Int) -> dict[int, Problem]:
    """The records that are no events for the size of their value."""
    problems = {
        place: Problem("decode", DeadReason.EMPTY, "the record has no value") for place in np.flatnonzero(sizes <= 0).tolist()
    }
    for place in np.flatnonzero(sizes > MAX_RECORD).tolist():
        message = f"the value has {sizes[place]} bytes, and {MAX_RECORD} are allowed"
        problems[place] = Problem("decode", DeadReason.OVERSIZED, message)
    return problems


# --- control records -----------------------------------------------------------------------------------------------


def _control_of(record: Incoming, source: Source) -> TickStep | SwitchStep | Origin | Redriven | Problem | None:
    """What the header `tocsin` of a record says; None where there is none."""
    if len(record.headers) > MAX_HEADER_COUNT:
        message = f"the record has more than {MAX_HEADER_COUNT:,} headers"
        return Problem("decode", DeadReason.OVERSIZED, message)
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


class _Part(NamedTuple):
    """A run decoded. `problems` says what is wrong with the records that were left out, by their place."""

    columns: Columns
    problems: dict[int, Problem]
    forwards: list[Forwarded]
    strict: int


def _decode_run(fetched: Fetched, places: Int, known: _Found, source: Source) -> _Part:
    """The records at `places`, between which no record changes what judges them."""
    scanned = scan(np.frombuffer(fetched.data, dtype=np.uint8), fetched.value_at[places], fetched.value_size[places])
    parsed = _parse(fetched, places[scanned.doubtful])
    problems = parsed.problems
    for at in known.origins.keys() & set(places.tolist()) if known.origins else ():
        if _is_array(fetched, at):
            problems.setdefault(at, _bad_control("a forwarded record holds one event, and this one holds an array"))
    place, index = np.concatenate([places[scanned.record], parsed.place]), np.concatenate([scanned.index, parsed.index])
    order = np.lexsort((index, place)) if parsed.events else np.arange(len(place))
    place, index = place[order], index[order]
    ts = np.concatenate([scanned.integers("ts", 0), parsed.ts])[order]
    weight = np.concatenate([scanned.integers("weight", _DEFAULT_WEIGHT), parsed.weight])[order]
    fields = _fields(scanned, parsed.events, order)
    append_time = fetched.timestamps[place] * 1000
    for row in np.flatnonzero(ts > append_time + MAX_FUTURE).tolist():
        ahead = (ts[row] - append_time[row]) / MICROS
        message = f"ts lies {ahead:,.0f} s after the time at which the record was appended; at most 300 s are allowed"
        problem = Problem("validate", DeadReason.FUTURE, f"{message} - at `{_path(fetched, int(place[row]), int(index[row]))}`")
        problems.setdefault(int(place[row]), problem)
    homes = [partition_of(event.tenant, event.service, source.partitions) for event in parsed.events]
    home = np.concatenate([scanned.partitions(DEFAULTS["tenant"], source.partitions), np.array(homes, dtype=np.int64)])[order]
    origins = _by_row(known.origins, place)
    for row in origins:
        if home[row] != source.partition:
            message = f"the forwarded event belongs to partition {home[row]}, not to this one"
            problems.setdefault(int(place[row]), Problem("control", DeadReason.MISROUTED, message))
    if problems:
        kept = ~np.isin(place, list(problems))
        fields = _kept(scanned, parsed.events, order, kept)
        place, index, ts, append_time, home, weight = (column[kept] for column in (place, index, ts, append_time, home, weight))
        origins = _by_row(known.origins, place)
    columns = Columns(
        fields=fields,
        offset=fetched.offsets[place],
        index=index,
        append_time=append_time,
        ts=ts,
        weight=weight,
        local=home == source.partition,
        origins=origins,
        redriven=_by_row(known.redriven, place),
    )
    return _Part(columns, problems, _forwards(columns, place, home, fetched, source), parsed.strict)


Where = TypeVar("Where")


def _by_row(by_place: Mapping[int, Where], place: Int) -> dict[int, Where]:
    """What is known of records, by the rows of their events."""
    if not by_place:
        return {}
    return {row: by_place[at] for row, at in enumerate(place.tolist()) if at in by_place}


@dataclass(frozen=True, slots=True)
class _Parsed:
    """Events that were decoded one by one, with the places of their records and their indices in them."""

    events: list[Any]
    place: Int
    index: Int
    ts: Int
    weight: Int
    problems: dict[int, Problem]
    strict: int


def _parse(fetched: Fetched, places: Int) -> _Parsed:
    """The records at `places`, which the scanner leaves to a decoder that makes objects."""
    found, problems, strict = parse_values(fetched.values(places))
    by_place = {int(places[at]): problem for at, problem in problems.items()}
    lengths = np.array([len(each) if type(each) is list else 1 for each in found], dtype=np.int64)
    events = list(itertools.chain.from_iterable([each if type(each) is list else (each,) for each in found]))
    place = np.repeat(places, lengths)
    index = np.arange(len(place), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ts = np.zeros(len(events), dtype=np.int64)
    for row, event in enumerate(events):
        for name, default in DEFAULTS.items():
            if getattr(event, name) is UNSET:
                setattr(event, name, default)
        try:
            ts[row] = event.ts = to_event_time(event.ts)
        except TimestampError as error:
            path = _path(fetched, int(place[row]), int(index[row]))
            by_place.setdefault(int(place[row]), Problem("validate", DeadReason.ILL_TYPED, f"{error} - at `{path}`"))
    weight = np.array([event.weight for event in events], dtype=np.int64)
    return _Parsed(events, place, index, ts, weight, by_place, strict)


def _path(fetched: Fetched, place: int, index: int) -> str:
    return f"$[{index}].ts" if _is_array(fetched, place) else "$.ts"


def _is_array(fetched: Fetched, place: int) -> bool:
    return (fetched.value(place) or b"").lstrip()[:1] == b"["


def _fields(scanned: Scanned, events: list[Any], order: Int) -> Fields:
    """The fields of both: row i is event order[i] of them, the scanned ones first."""
    if not events:
        return ScannedFields(scanned)
    rows = np.argsort(order)
    return JoinedFields((ScannedFields(scanned), Structs(events)), (rows[: len(scanned)], rows[len(scanned) :]))


def _kept(scanned: Scanned, events: list[Any], order: Int, kept: Bool) -> Fields:
    """The fields of the rows in `kept`."""
    stays = np.empty(len(order), dtype=np.bool_)
    stays[order] = kept
    number = np.cumsum(stays) - 1
    first = len(scanned)
    left = [event for event, keep in zip(events, stays[first:].tolist(), strict=True) if keep]
    return _fields(scanned.rows(stays[:first]), left, number[order[kept]])


def _forwards(columns: Columns, place: Int, home: Int, fetched: Fetched, source: Source) -> list[Forwarded]:
    """The events of other partitions, in the order of the log."""
    forwards: list[Forwarded] = []
    rows = np.flatnonzero(~columns.local).tolist()
    if not rows:
        return forwards
    tenant, service = columns.text(_TENANT), columns.text(_SERVICE)
    parsed, objects = -1, [b""]
    for row in rows:
        at, index = int(place[row]), int(columns.index[row])
        if at != parsed:
            value = fetched.value(at) or b""
            parsed, objects = at, elements(value) if _is_array(fetched, at) else [value]
        key = event_key(tenant.words[tenant.codes[row]], service.words[service.codes[row]])
        origin = Origin(source.partition, int(columns.offset[row]), index)
        forwards.append(Forwarded(int(home[row]), key, objects[index], origin))
    return forwards
