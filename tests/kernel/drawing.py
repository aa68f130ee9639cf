"""Logs and their outcomes as small tables, in seconds since `T0`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from schemas.alert import Transition
from schemas.rule import Rule, Ruleset, above, count
from streams.kernel.columns import Origin
from tests.kernel.folds import Outcome
from tests.kernel.log import SECOND, T0, EventsRecord, NothingRecord, Record, Row, SwitchRecord, TickRecord

IDLE_GRACE: Final = 3
WARNING: Final[dict[str, Any]] = {"severity": "warning"}
Fold = Callable[..., Outcome]
"""Folds records, with a bound on groups if it is given: see the fixture `fold`."""


def micros(seconds: float) -> int:
    return T0 + round(seconds * SECOND)


def row(
    at: float,
    service: str = "files",
    *,
    weight: int = 1,
    local: bool = True,
    origin: tuple[int, int, int] | None = None,
    **fields: Any,
) -> Row:
    """An event at `at`. Names that end in `_` are attributes: row(3, x_=1)."""
    attributes = {name[:-1]: value for name, value in fields.items() if name.endswith("_")}
    own = {name: value for name, value in fields.items() if not name.endswith("_")}
    said = {"kind": "operation", "service": service, "tenant": "acme", "attributes": attributes} | own
    return Row(micros(at), said, weight, local, None if origin is None else Origin(*origin))


def log(*entries: Any) -> list[Record]:
    """A log from entries: a Row is a record of its own, a list of them an array; `tick(9)` moves stream time to 9 s;
    a Ruleset, or a list of rules, is switched to; None is nothing. Offsets count from 0; records are appended when
    their (first) event happened, or where an entry is a pair (entry, seconds), then.
    """
    records: list[Record] = []
    seq, now = 0, T0
    for offset, given in enumerate(entries):
        entry, at = given if isinstance(given, tuple) else (given, None)
        match entry:
            case None:
                records.append(NothingRecord(offset))
            case Row() | [Row(), *_]:
                rows = (entry,) if isinstance(entry, Row) else tuple(entry)
                now = rows[0].ts if at is None else micros(at)
                records.append(EventsRecord(offset, now, rows))
            case int() | float():
                now = micros(entry + IDLE_GRACE)
                records.append(TickRecord(offset, now))
            case SwitchRecord():
                records.append(entry)
            case _:
                seq += 1
                ruleset = Ruleset(rules=tuple(entry))
                records.append(SwitchRecord(offset, now, ruleset.id, seq, ruleset))
    return records


def tick(stream_time: float) -> float:
    """A tick that moves stream time to `stream_time`."""
    return stream_time


def rule(name: str = "r", **said: Any) -> Rule:
    """A rule that counts over 4 s, in slices of 2 s, and warns above 2 where no level is given."""
    given: dict[str, Any] = {"measure": count(), "over": "4s", "every": "2s", "summary": "{value}"} | said
    if not {"info", "warning", "high", "critical", "levels"} & set(given):
        given["warning"] = above(2)
    return Rule(name=name, **given)


def edited(rule: Rule, **changes: Any) -> Rule:
    """The rule as its author would change it."""
    return Rule.model_validate(rule.document() | changes)


KINDS = {"condition_met": "fired", "severity_raised": "raised"}


def line(transition: Transition) -> str:
    """`at rule service kind severity value`, with the reason as the kind of a resolution."""
    kind = KINDS.get(transition.reason.value, transition.reason.value)
    value = "-" if transition.value is None else f"{transition.value:.6g}"
    at = f"{(transition.decided_at - T0) / SECOND:.10g}"
    return f"{at} {transition.rule} {transition.source} {kind} {transition.severity} {value}"


def lines(transitions: Sequence[Transition]) -> list[str]:
    return [line(transition) for transition in transitions]


def timed(fold: Fold, *entries: Any) -> list[str]:
    """What the log of `entries` makes the engine say."""
    return lines(fold(log(*entries)).transitions)


def drawn(table: str) -> list[str]:
    """The lines of a drawn table, in the form of `lines`."""
    return [" ".join(text.split()) for text in table.strip().splitlines() if text.strip()]
