"""What is fuzzed: each target takes any bytes, and raises where something happens that must not.

Whatever comes in, only the project's own errors come out; and where a plainer reader of the same bytes exists, both agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from schemas.control import HEADER
from schemas.event import parse_events
from schemas.expression import Predicate
from schemas.rule import Rule
from streams.decode import MAX_FUTURE, Decoded, Source, decode
from streams.kernel.columns import Columns
from streams.kernel.expression import mask
from streams.kernel.judge import Plan
from streams.ruleset_log import RulesetLog
from streams.runtime.rulesets import Rulesets
from streams.settings import Settings, SettingsError, variable
from streams.testing import START
from tests.columns import events_of
from tests.kernel.log import EventsRecord, Row, columns_of
from tests.kernel.measuring import matches

RECORD: Final = b"\x1e"
"""Stands between records."""
PART: Final = b"\x1f"
"""Stands between the parts of a record: its value, and the values of its header `tocsin`."""
SOURCES: Final = (Source("mcp.events", 0, 2), Source("mcp.events", 1, 2), Source("mcp.events", 0, 2, b"key"))


class WrongError(AssertionError):
    """Two readers disagree, or what went in did not come out."""


@dataclass(frozen=True, slots=True)
class Record:
    offset: int
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = None
    timestamp: int = START // 1000


def _records(data: bytes) -> list[Record]:
    records = []
    for offset, text in enumerate(data.split(RECORD)):
        value, *headers = text.split(PART)
        records.append(Record(offset, value or None, tuple((HEADER, header) for header in headers)))
    return records


# --- the decoder ---------------------------------------------------------------------------------------------------


def decoder(data: bytes) -> None:
    """The first byte chooses the source; a plain record becomes the events that the strict parser finds, or a dead letter."""
    source = SOURCES[data[0] % len(SOURCES) if data else 0]
    records = _records(data[1:])
    decoded = decode(records, source)
    found = _events(decoded)
    dead = {letter.record.offset for letter in decoded.dead_letters}
    if dead & found.keys():
        raise WrongError(f"records {dead & found.keys()} are events and dead letters")
    if decoded.chunk.last_offset != records[-1].offset:
        raise WrongError(f"the chunk ends at {decoded.chunk.last_offset}, the records at {records[-1].offset}")
    for record in records:
        if not record.headers:
            _compare(record, found.get(record.offset, []), is_dead=record.offset in dead)
    for letter in decoded.dead_letters:
        letter.outgoing(source)
    for forward in decoded.forwards:
        forward.outgoing(source)


def _events(decoded: Decoded) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for step in decoded.chunk.steps:
        if isinstance(step, Columns):
            for offset, event in zip(step.offset.tolist(), events_of(step), strict=True):
                found.setdefault(offset, []).append(event)
    return found


def _compare(record: Record, found: list[dict[str, Any]], *, is_dead: bool) -> None:
    try:
        expected = parse_events(record.value or b"")
    except (ValueError, RecursionError):
        expected = None
    if expected is not None and any(event.ts > record.timestamp * 1000 + MAX_FUTURE for event in expected):
        expected = None
    if (expected is None) != is_dead:
        raise WrongError(f"{record.value!r} is strictly {expected}, and was {'refused' if is_dead else 'taken'}")
    if expected is not None and [_fields(dict(event)) for event in expected] != [_fields(event) for event in found]:
        raise WrongError(f"{record.value!r} is strictly {expected}, and was taken for {found}")


def _fields(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if value not in (None, {})}


# --- dead letters --------------------------------------------------------------------------------------------------


def dead_letters(data: bytes) -> None:
    """A record that is refused once more, as it lies in the dead letters, is refused for the same reason."""
    source = SOURCES[data[0] % len(SOURCES) if data else 0]
    for letter in decode(_records(data[1:]), source).dead_letters:
        outgoing = letter.outgoing(source)
        held = dict(outgoing.headers)
        if held["dlq.source.offset"] != b"%d" % letter.record.offset or held["dlq.reason"].decode() != letter.reason:
            raise WrongError(f"{outgoing} does not tell of {letter}")
        own = tuple((name, value) for name, value in outgoing.headers if not name.startswith("dlq."))
        again = decode([Record(letter.record.offset, outgoing.value, own, outgoing.key)], source).dead_letters
        if [each.reason for each in again] != [letter.reason]:
            raise WrongError(f"{letter} comes back as {again}")


# --- rules ---------------------------------------------------------------------------------------------------------


def ruleset(data: bytes) -> None:
    """Records of `mcp.rules` in any state: a key, and what it holds. What cannot be read is listed, never raised."""
    log, known = RulesetLog(), Rulesets("mcp.rules")
    for offset, text in enumerate(data.split(RECORD)):
        key, _, value = text.partition(PART)
        record = Record(offset, value or None, key=key)
        log.fold(record)
        known._log.fold(record)
    manifests = [key.removeprefix("ruleset/") for key in log._documents if key.startswith("ruleset/")]
    for id in manifests:
        known.ruleset(id)
    log.unused(1 << 60)
    if log.current is not None:
        try:
            rules = log.rules(log.current)
        except ValueError:
            return
        for each in rules:
            _check_rule(each)


def rule(data: bytes) -> None:
    """A rule document, as JSON: refused with a ValidationError, or the same once more when it is written out and read."""
    try:
        found = Rule.model_validate_json(data)
    except ValidationError:
        return
    _check_rule(found)


def _check_rule(found: Rule) -> None:
    again = Rule.model_validate(found.document())
    if (again.revision, again.document()) != (found.revision, found.document()):
        raise WrongError(f"{found!r} is {again!r} when it is read again")
    Plan(found)


_PREDICATE: Final[TypeAdapter[Any]] = TypeAdapter(Predicate)
_VALUES: Final[tuple[dict[str, Any], ...]] = (
    {"tool": "read", "dur_us": 1, "outcome": "ok"},
    {"tool": "", "dur_us": 0, "outcome": "timeout", "attributes": {"x": True}},
    {"tool": None, "value": 0.5, "attributes": {"x": 1}},
    {"dur_us": -3, "value": -0.0, "attributes": {"x": 1.0, "y": "1"}},
    {"tool": "é\n", "dur_us": 2**53, "attributes": {"x": "1", "y": ""}},
    {"value": 1e-9, "attributes": {"x": False, "y": -(2**53)}},
)
_ROWS: Final = tuple(
    Row(START, {"service": "files", "tenant": "acme", "attributes": {}} | values, weight=1 + at)
    for at, values in enumerate(_VALUES)
)


def expression(data: bytes) -> None:
    """A condition, as JSON: refused, or it selects as the plain reading of it does, row by row."""
    try:
        predicate = _PREDICATE.validate_json(data)
    except ValidationError:
        return
    columns = columns_of([EventsRecord(0, START, _ROWS)])
    selected = mask(predicate, columns).tolist()
    expected = [matches(predicate, row) for row in _ROWS]
    if selected != expected:
        raise WrongError(f"{predicate!r} selects {selected}, and {expected} is right")
    if _PREDICATE.validate_json(_PREDICATE.dump_json(predicate)) != predicate:
        raise WrongError(f"{predicate!r} is another when it is read again")


# --- settings ------------------------------------------------------------------------------------------------------

_NAMES: Final = frozenset(variable(name) for name in Settings.__dataclass_fields__)


def settings(data: bytes) -> None:
    """Lines of NAME=value, without TOCSIN_: refused with a SettingsError, or shown without the secrets."""
    lines = [line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n")]
    environment = {f"TOCSIN_{name}": value for name, _, value in lines}
    try:
        found = Settings.from_environment(environment)
        found.require_control_key()
    except SettingsError:
        return
    if environment.keys() - _NAMES:
        raise WrongError(f"unknown settings were taken: {environment.keys() - _NAMES}")
    shown = found.shown()
    for name in ("control_key", "kafka_password"):
        secret = getattr(found, name)
        if secret and shown[variable(name)] == secret:
            raise WrongError(f"{name} is shown")


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    each.__name__: each for each in (decoder, dead_letters, ruleset, rule, expression, settings)
}
