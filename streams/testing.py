"""For the tests of rules: a clock, events, and what a rule makes of them; and the examples that stand beside a rule.

    clock = FakeClock()
    failures = [event(clock.advance("10s"), method="tools/call", tool="read", outcome="tool_error") for _ in range(20)]
    fired, resolved = run_rule(tool_error_rate, [*failures, tick(clock.advance("15m"))])

Everything runs through the decoder and the kernel of the engine, in memory: no Kafka, no Redis, no waiting. The format of
example files is described in docs/writing-rules.md.
"""

from __future__ import annotations

import difflib
import heapq
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas.alert import Transition
from schemas.control import HEADER, RulesetRecord
from schemas.dead_letter import Headers
from schemas.event import Event
from schemas.rule import Rule, Ruleset
from schemas.strict_json import strict_loads
from schemas.time import duration_text, to_duration, to_micros
from streams.decode import Source, decode
from streams.kernel.columns import Columns
from streams.kernel.expression import mask
from streams.kernel.partition import Changes, PartitionState
from streams.kernel.slices import IDLE_GRACE

START: Final = to_micros("2026-01-01T00:00:00Z")
"""When examples begin: a moment at which slices of every usual width begin too."""
MAX_EVENTS: Final = 100_000
_SOURCE: Final = Source("mcp.events", 0, 1)
_TICK: Final = ((HEADER, b'{"control":"tick"}'),)
_DEFAULTS: Final[Mapping[str, Any]] = {"kind": "operation", "service": "files"}
_PLACED: Final = ("at", "repeat", "every")
_EXPECTED: Final = ("status", "severity", "at", "reason", "value", "threshold", "labels", "message")


class ExampleError(ValueError):
    """An examples file that does not say what its format asks for."""


class ExamplesFailed(AssertionError):  # noqa: N818 - it reads as what happened, like AssertionError
    """A rule did not do what its examples expect. The text shows what it did instead."""


class FakeClock:
    """A clock that stands still until it is told to go on. Call it for the time in microseconds."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        """The time."""
        return self.now

    def advance(self, by: str | int) -> int:
        """Move on by a duration such as '30s' or by microseconds, and return the new time."""
        self.now += to_duration(by)
        return self.now


@dataclass(frozen=True, slots=True)
class Tick:
    """Silence until `at`, in microseconds; as append times are, it is cut to whole milliseconds."""

    at: int


Step = Event | Tick


def event(at: str | int = "0s", /, **fields: Any) -> Event:
    """An event at `at`: a duration after START such as '90s', or microseconds since the epoch.

    Its kind is `operation` and its service `files` unless `fields` say otherwise. Raises ValueError where the engine
    would refuse the event, and for a field that events do not have.
    """
    if "ts" in fields:
        raise ValueError("the time of an event is given by 'at', and 'ts' follows from it")
    for name in fields:
        if name not in Event.model_fields:
            raise ValueError(f"events have no field {name!r}{_meant(name, Event.model_fields)}; your own go into attributes")
    try:
        return Event.model_validate({**_DEFAULTS, **fields, "ts": _moment(at)})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def tick(at: str | int) -> Tick:
    """Silence until `at`, written like that of `event`."""
    return Tick(_moment(at))


def run_rule(rule: Rule, steps: Iterable[Step]) -> list[Transition]:
    """What `rule` decides where `steps` arrive in this order, each event at its own time or at that of the last before it."""
    return list(_run(rule, steps).changes.transitions)


def _moment(at: str | int) -> int:
    return at if isinstance(at, int) else START + to_duration(at)


def _meant(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


# --- running a rule ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Record:
    """A record as Kafka would give it. `timestamp` is in milliseconds."""

    offset: int
    timestamp: int
    value: bytes | None
    headers: Headers = ()
    key: None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    changes: Changes
    selected: int


def _run(rule: Rule, steps: Iterable[Step]) -> _Outcome:
    ruleset = Ruleset(rules=(rule,))
    decoded = decode(list(_records(ruleset, steps)), _SOURCE)
    if decoded.dead_letters:
        first = decoded.dead_letters[0]
        raise ValueError(f"the engine refuses event {first.record.offset}: {first.message}")
    state = PartitionState(_SOURCE.topic, _SOURCE.partition)
    changes = state.apply(decoded.chunk, {ruleset.id: ruleset})
    columns = [step for step in decoded.chunk.steps if isinstance(step, Columns)]
    return _Outcome(changes, sum(int(mask(rule.select, each).sum()) for each in columns))


def _records(ruleset: Ruleset, steps: Iterable[Step]) -> Iterator[_Record]:
    switch = RulesetRecord(control="ruleset", id=ruleset.id, seq=1).model_dump_json().encode()
    yield _Record(0, START // 1000, None, ((HEADER, switch),))
    now = 0
    for offset, step in enumerate(steps, 1):
        if isinstance(step, Tick):
            now = max(now, step.at)
            yield _Record(offset, (now + IDLE_GRACE) // 1000, None, _TICK)
        else:
            now = max(now, step.ts)
            yield _Record(offset, -(-now // 1000), step.model_dump_json(exclude_unset=True, exclude_none=True).encode())


# --- examples ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """Steps, and the transitions that they are expected to make: of each, what must be so."""

    name: str
    line: int
    expect: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]

    @property
    def fires(self) -> bool:
        """Whether an alert is expected."""
        return any(each["status"] == "firing" for each in self.expect)


def examples_path(rule: Rule, folder: Path) -> Path:
    """Where the examples of `rule` are kept, if its module is in `folder`."""
    return folder / f"{rule.name.replace('-', '_')}.examples.jsonl"


def load_examples(path: Path) -> list[Example]:
    """The examples in a file. Raises ExampleError with file and line for what is no example."""
    lines = [(number, line) for number, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()]
    reader = _Reader()
    for number, line in lines:
        try:
            reader.read(number, strict_loads(line))
        except ValueError as error:
            raise ExampleError(f"{path}:{number}: {error}") from None
    found = reader.finish()
    if not found:
        raise ExampleError(f'{path}: holds no example; begin one with {{"example": "what it shows", "expect": []}}')
    return found


class _Reader:
    """Lines to examples. `common` fields go into every event; the lines between two ticks are merged by time."""

    def __init__(self) -> None:
        self._common: dict[str, Any] = {}
        self._done: list[Example] = []
        self._open: Example | None = None
        self._steps: list[Step] = []
        self._merging: list[list[Event]] = []

    def read(self, number: int, line: Any) -> None:
        if not isinstance(line, dict):
            raise ExampleError("a line is a JSON object")
        if "common" in line:
            self._read_common(line)
        elif "example" in line:
            self._read_header(number, line)
        elif self._open is None:
            raise ValueError('events belong to an example; begin it with {"example": "what it shows", "expect": []}')
        elif "tick" in line:
            _only(line, ("tick",))
            self._merge()
            last = max((step.ts if isinstance(step, Event) else step.at for step in self._steps), default=START)
            self._steps.append(Tick(last + to_duration(line["tick"])))
        else:
            self._merging.append(self._events(line))

    def finish(self) -> list[Example]:
        if self._open is not None:
            self._merge()
            example = self._open
            self._done.append(Example(example.name, example.line, example.expect, tuple(self._steps)))
            self._open, self._steps = None, []
        return self._done

    def _read_common(self, line: dict[str, Any]) -> None:
        _only(line, ("common",))
        if self._open is not None or not isinstance(line["common"], dict):
            raise ValueError('"common" is an object with fields of all events, and stands before the first example')
        event(**line["common"])
        self._common = line["common"]

    def _read_header(self, number: int, line: dict[str, Any]) -> None:
        _only(line, ("example", "expect"))
        self.finish()
        name, expect = line["example"], line.get("expect")
        if not isinstance(name, str) or not name:
            raise ValueError('"example" says what the example shows')
        if any(name == example.name for example in self._done):
            raise ValueError(f"the name {name!r} is taken by an example above")
        if not isinstance(expect, list) or not all(isinstance(each, dict) for each in expect):
            raise ValueError('"expect" is a list of objects, one per transition; it is empty where nothing must fire')
        for each in expect:
            _only(each, _EXPECTED)
            if each.get("status") not in ("firing", "resolved"):
                raise ValueError('each of "expect" has a "status", firing or resolved')
            if "at" in each:
                to_duration(each["at"])
        self._open = Example(name, number, tuple(expect), ())

    def _events(self, line: dict[str, Any]) -> list[Event]:
        fields = {**self._common, **{name: value for name, value in line.items() if name not in _PLACED}}
        repeat = line.get("repeat", 1)
        if not isinstance(repeat, int) or isinstance(repeat, bool) or not 1 <= repeat <= MAX_EVENTS:
            raise ValueError(f'"repeat" is a number from 1 to {MAX_EVENTS}')
        if repeat > 1 and "every" not in line:
            raise ValueError('"repeat" goes with "every", the time from one event to the next')
        at, step = START + to_duration(line.get("at", "0s")), to_duration(line.get("every", 0))
        first = event(at, **fields)
        return [first.model_copy(update={"ts": at + step * n}) for n in range(repeat)]

    def _merge(self) -> None:
        self._steps += heapq.merge(*self._merging, key=attrgetter("ts"))
        self._merging = []


def _only(line: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in line:
        if name not in names:
            raise ValueError(f"{name!r} does not belong here{_meant(name, names)}; it may hold {', '.join(names)}")


# --- checking ------------------------------------------------------------------------------------------------------


def check_examples(rule: Rule, path: Path) -> None:
    """Run the examples in `path`. Raises ExamplesFailed with what happened instead, for every example that fails."""
    failures = list(failing_examples(rule, path))
    if failures:
        raise ExamplesFailed("\n\n".join(failures))


def failing_examples(rule: Rule, path: Path) -> Iterator[str]:
    """What happened instead, example by example of `path`; those that do as they say are left out."""
    for example in load_examples(path):
        yield from _failure(rule, example, path)


def _failure(rule: Rule, example: Example, path: Path) -> Iterator[str]:
    outcome = _run(rule, example.steps)
    found = [_shown(transition) for transition in outcome.changes.transitions]
    differences = [
        difference
        for number, (wanted, got) in enumerate(zip(example.expect, found, strict=False), 1)
        for difference in _differences(number, wanted, got)
    ]
    if len(found) != len(example.expect):
        differences.append(f"{len(example.expect)} transitions were expected, and there were {len(found)}")
    if differences:
        events = sum(isinstance(step, Event) for step in example.steps)
        late = sum(outcome.changes.late.values())
        yield "\n".join(
            [
                f"{path}:{example.line}: {rule.name}: {example.name}",
                *(f"    expected {each}" for each in _texts(example.expect)),
                *(f"    found    {each}" for each in _texts(found)),
                f"    {outcome.selected} of {events} events match select=" + (f", {late} came late" if late else ""),
                *(f"    {difference}" for difference in differences),
            ]
        )


def _shown(transition: Transition) -> dict[str, Any]:
    """A transition in the words of "expect", to be copied from a failure into the file."""
    return {
        "status": transition.status,
        "severity": transition.severity,
        "at": duration_text(transition.decided_at - START),
        "reason": transition.reason.value,
        "value": transition.value,
        "threshold": transition.threshold,
        "labels": transition.labels,
        "message": transition.message,
    }


def _texts(transitions: Sequence[Mapping[str, Any]]) -> list[str]:
    return [json.dumps(each, ensure_ascii=False) for each in transitions] or ["nothing"]


def _differences(number: int, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name, want in wanted.items():
        got = found[name]
        if name == "labels":
            got = {label: got.get(label) for label in want}
        if not _same(name, want, got):
            yield f"{name} of {number} is {json.dumps(got, ensure_ascii=False)}, not {json.dumps(want, ensure_ascii=False)}"


def _same(name: str, want: Any, got: Any) -> bool:
    if name == "at":
        return to_duration(want) == to_duration(got)
    if isinstance(want, float | int) and isinstance(got, float | int):
        return math.isclose(want, got, rel_tol=1e-6)
    return bool(want == (list(got) if isinstance(got, tuple) else got))
