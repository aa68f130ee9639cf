"""Rulesets and logs at random, made so that what is decided is often close: few groups, small numbers, short windows.

They are made from a Pick, which is a source of choices: hypothesis, which shrinks them, or a seeded `random.Random`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

from schemas.condition import SEVERITIES, Condition, Level, Severity, Threshold
from schemas.expression import Everything, Predicate
from schemas.rule import (
    Rule,
    Ruleset,
    above,
    absence,
    below,
    count,
    equal,
    error_rate,
    event,
    max_of,
    mean,
    metric_threshold,
    min_of,
    performance_regression,
    rate,
    ratio,
    security_violation,
    sum_of,
)
from streams.kernel.columns import Origin, Redriven
from streams.kernel.redriven import KEEP
from tests.kernel.log import SECOND, T0, EventsRecord, NothingRecord, Record, Row, SwitchRecord, TickRecord

_T = TypeVar("_T")

SERVICES: Final = ("files", "mail")
TOOLS: Final = ("read", "read", "write", None)
REGIONS: Final[tuple[Any, ...]] = (None, None, None, None, "eu", "1", 1, 1.0, True, "", 'é"\n')
NUMBERS: Final[tuple[Any, ...]] = (0, 1, 2, 3, 5, 0.1, 0.25, -1, -0.5, 3.000000001)
EXTREMES: Final[tuple[Any, ...]] = (2**53, -(2**53), 0.000000001, 123456.123456789)
LOADS: Final[tuple[Any, ...]] = (*NUMBERS, None, True, False, "3")
"""What an attribute may hold where a rule expects a number."""


class Pick(Protocol):
    """A source of choices. What comes first in a sequence is the simplest."""

    def one(self, of: Sequence[_T]) -> _T: ...

    def number(self, low: int, high: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Seeded:
    """Choices by a seeded generator."""

    source: random.Random

    def one(self, of: Sequence[_T]) -> _T:
        return self.source.choice(of)

    def number(self, low: int, high: int) -> int:
        return self.source.randint(low, high)


def chance(pick: Pick, percent: int) -> bool:
    """True in `percent` of 100 cases; False is the simpler one."""
    return pick.number(0, 99) >= 100 - percent


# --- rules --------------------------------------------------------------------------------------------------------

SELECTIONS: Final[tuple[Predicate, ...]] = (
    Everything(),
    event.kind == "operation",
    event.tool == "read",
    event.tool != "read",
    event.tool.exists() | (event.dur_us > 1),
    event.outcome.in_("ok", "timeout"),
    event.attributes["load"] <= 3,
    (event.attributes["region"] == 1) | ~(event.attributes["load"].exists()),
    ~(event.attributes["region"].in_("1", True)) & (event.weight < 5),
)
GROUPINGS: Final[tuple[tuple[str, ...], ...]] = (
    ("tenant", "service"),
    ("tenant", "service"),
    ("service", "tenant", "tool"),
    ("tenant", "service", "attributes.region"),
)
FIELDS: Final[tuple[Any, ...]] = (event.dur_us, event.value, event.attributes["load"], event.weight)
MEASURES: Final = ("count", "rate", "sum", "ratio", "mean", "min", "max", "regression")
EVERY: Final = (2 * SECOND, SECOND, 3 * SECOND, SECOND // 2, 700_000)
SEVERAL: Final[tuple[tuple[Severity, ...], ...]] = (("high",), ("warning",), ("info", "critical"), ("info", "high", "critical"))
LASTING: Final = (0, 0, 0, SECOND, 2_500_000, 5 * SECOND)
VALUES: Final = {
    "count": (2, 0, 1, 3, 5),
    "rate": (0.5, 0, 0.25, 1, 0.333333333),
    "sum": (3, 0, 1, 5.1, -1),
    "ratio": (0.5, 0, 0.25, 1, 0.333333333),
    "mean": (2, 0, 1.5, 3, 0.1),
    "min": (0, -0.5, 1, 2, 3),
    "max": (2, 0, 1, 3, 5),
    "regression": (0.5, 0, -0.5, 1, 0.333333333),
}


def a_threshold(pick: Pick, measure: str, *, at_least: bool = True) -> Threshold:
    value = pick.one(VALUES[measure])
    enough = pick.one((2, 3, 5)) if at_least and chance(pick, 30) else 0
    match pick.one(("above", "above", "below", "equal")):
        case "above":
            return above(value, at_least=enough)
        case "below":
            return below(value, at_least=enough)
        case _:
            return equal(value, tolerance=pick.one((0, 0.5, 1)), at_least=enough)


def a_measure(pick: Pick, every: int) -> Any:
    match pick.one(MEASURES):
        case "count":
            return count()
        case "rate":
            return rate()
        case "ratio":
            return ratio(pick.one((event.outcome == "timeout", event.dur_us >= 2, event.attributes["region"] == 1)))
        case "regression":
            return performance_regression(pick.one(FIELDS), 1, every * pick.number(1, 3), current=every, every=every).measure
        case name:
            return {"sum": sum_of, "mean": mean, "min": min_of, "max": max_of}[name](pick.one(FIELDS))


def a_condition(pick: Pick) -> Condition:
    """One of the conditions of the specification."""
    every = pick.one(EVERY)
    said: dict[str, Any] = {"every": every}
    over = every * pick.number(1, 5)
    match pick.one(("absence", "metric", "error rate", "security", "regression")):
        case "absence":
            return absence(for_=over, no_data_after=every * pick.number(1, 12), **said)
        case "metric":
            comparison = pick.one(("above", "below", "equal"))
            metric = pick.one(("dur_us", "attributes.load", "temperature"))
            if comparison == "equal":
                said["tolerance"] = pick.one((0, 1))
            return metric_threshold(metric, comparison, pick.one(VALUES["mean"]), over, **said)
        case "error rate":
            return error_rate(pick.one(("*", "files")), pick.one((0.5, 0.25, 0)), over, at_least=pick.one((1, 2, 4)), **said)
        case "security":
            return security_violation(pick.one(("*", "authn")), pick.one((1, 0, 2)), over, **said)
        case _:
            said |= {"current": over, "at_least": pick.one((0, 2))}
            return performance_regression("dur_us", pick.one((0.5, 0)), every * pick.number(1, 3), **said)


def a_life(pick: Pick, every: int) -> dict[str, Any]:
    """What is not of the condition: how long a rule waits before it fires and resolves, and what it says."""
    said: dict[str, Any] = {
        "hold_for": pick.one(LASTING),
        "keep_firing_for": pick.one(LASTING),
        "summary": "{rule} {severity} on {service}: {value:.3g}, {threshold:percent} {unit}",
        "cooldown": pick.one((900 * SECOND, 0)),
    }
    if chance(pick, 50):
        said["no_data_after"] = max(every, pick.one((30 * SECOND, 10 * SECOND, 3 * SECOND)))
    if chance(pick, 20):
        said |= {"unit": "ms", "runbook": "https://runbooks/r", "annotations": {"team": "a"}, "channels": ("log", "webhook")}
    return said


def some_levels(pick: Pick, measure: str) -> dict[str, Any]:
    severities = pick.one(SEVERAL)
    thresholds = [a_threshold(pick, measure) for _ in severities]
    if len(thresholds) > 1 and chance(pick, 70):
        # The usual kind: the higher the severity, the higher the number.
        thresholds = [above(number) for number in sorted(threshold.value for threshold in thresholds)]
    levels = [Level(severity=severity, when=threshold) for severity, threshold in zip(severities, thresholds, strict=True)]
    return {"levels": levels, "recover": a_threshold(pick, measure, at_least=False) if chance(pick, 30) else None}


def a_rule(pick: Pick, name: str) -> Rule:
    if chance(pick, 25):
        condition = a_condition(pick)
        life = a_life(pick, condition.every)
        if condition.no_data_after:
            life.pop("no_data_after", None)
        return Rule(name=name, condition=condition, severity=pick.one(SEVERITIES), **life)
    every = pick.one(EVERY)
    measure = a_measure(pick, every)
    return Rule(
        name=name,
        select=pick.one(SELECTIONS),
        by=pick.one(GROUPINGS),
        measure=measure,
        over=every * pick.number(1, 5),
        every=every,
        **some_levels(pick, measure.measure),
        **a_life(pick, every),
    )


def an_edit(pick: Pick, rule: Rule) -> Rule | None:
    """The rule in the next ruleset: untouched, edited so that it keeps its state, rewritten, or gone (None)."""
    match pick.one(("levels", "same", "window", "life", "rewritten", "gone")):
        case "same":
            return rule
        case "gone":
            return None
        case "rewritten":
            return a_rule(pick, rule.name)
        case "levels":
            changes = some_levels(pick, rule.measure.measure)
        case "window":
            changes = {"over": rule.every * pick.number(1, 6)}
        case _:
            changes = a_life(pick, rule.every)
    return Rule.model_validate(rule.document() | changes)


def some_rulesets(pick: Pick, number: int, rules: int) -> list[Ruleset]:
    """Rulesets of at most `rules` rules, each but the first an edit of the one before."""
    names = ("a", "b-2", "b", "c")
    current = [a_rule(pick, name) for name in names[: pick.number(1, rules)]]
    found = [Ruleset(rules=tuple(current))]
    while len(found) < number:
        edits = [an_edit(pick, rule) for rule in current]
        current = [rule for rule in edits if rule is not None]
        free = [name for name in names if name not in {rule.name for rule in current}]
        if free and chance(pick, 30):
            current.append(a_rule(pick, pick.one(free)))
        found.append(Ruleset(rules=tuple(current)))
    return found


# --- logs ---------------------------------------------------------------------------------------------------------

NEAR: Final = (0, -100_000, 400_000, -SECOND, SECOND)
FAR: Final = (-3 * SECOND, -7 * SECOND, 4 * SECOND, -20 * SECOND, 9 * SECOND, 14 * SECOND)
STEPS: Final = (0, 0, 200_000, SECOND // 2, SECOND, 2 * SECOND)
JUMPS: Final = (4 * SECOND, 10 * SECOND, 31 * SECOND, 90 * SECOND)


def a_row(pick: Pick, now: int) -> Row:
    fields: dict[str, Any] = {
        "tenant": "acme",
        "service": pick.one(SERVICES),
        "tool": pick.one(TOOLS),
        "kind": pick.one(("operation", "operation", "operation", "metric", "security")),
        "dur_us": pick.one((1, 0, 2, 3, 4, 6, None)),
        "outcome": pick.one(("ok", "timeout", None)),
    }
    if fields["kind"] == "metric":
        fields |= {"name": pick.one(("temperature", "other")), "value": pick.one((1.0, 2.0, 0.1, -3.0, None))}
    if fields["kind"] == "security":
        fields |= {"result": pick.one(("fail", "ok")), "action": pick.one(("authn", "violation"))}
    load = pick.one(EXTREMES if chance(pick, 3) else LOADS)
    attributes = {name: value for name, value in (("load", load), ("region", pick.one(REGIONS))) if value is not None}
    ts = now + (pick.one(FAR) if chance(pick, 6) else pick.one(NEAR) if chance(pick, 30) else 0)
    if chance(pick, 20):
        ts = ts // SECOND * SECOND
    origin = None
    if chance(pick, 15):
        origin = Origin(pick.number(0, 1), pick.number(0, 6), pick.number(0, 1))
    weight = 1_000_000 if chance(pick, 1) else pick.one((1, 1, 1, 1, 2, 3))
    return Row(ts, fields | {"attributes": attributes}, weight, not chance(pick, 5), origin)


AGES: Final = (20 * SECOND, KEEP - 9 * SECOND, KEEP - 40 * SECOND, KEEP + SECOND)


def a_redriven(record: EventsRecord) -> EventsRecord:
    """The record as the redrive of one of a few, which may be so old that it is about to be forgotten."""
    appended = T0 - AGES[record.offset // 3 % len(AGES)]
    rows = tuple(replace(row, origin=None) for row in record.rows)
    return replace(record, rows=rows, redriven=Redriven(record.offset % 5, appended))


def a_log(pick: Pick, length: int, rules: int = 3) -> list[Record]:
    """A log of `length` records. The first is a switch, in most logs."""
    rulesets = some_rulesets(pick, pick.one((1, 2, 3)) + length // 100, rules)
    now = T0 + pick.number(0, 12) * SECOND // 4
    records: list[Record] = []
    offset, seq = pick.number(0, 2), 1
    if not chance(pick, 10):
        records.append(SwitchRecord(offset, now, rulesets[0].id, seq, rulesets[0]))
    switches = {pick.number(1, length): ruleset for ruleset in rulesets[1:]}
    for n in range(length):
        offset += 1 if chance(pick, 95) else 3
        now += pick.one(STEPS)
        ruleset = switches.get(n)
        if ruleset is not None:
            seq += 1
            records.append(SwitchRecord(offset, now, ruleset.id, seq, ruleset))
            continue
        match pick.number(0, 99):
            case roll if roll < 85:
                rows = tuple(a_row(pick, now) for _ in range(1 if roll < 70 else pick.number(0, 4)))
                record = EventsRecord(offset, now, rows)
                records.append(a_redriven(record) if roll in (30, 31, 32, 72) else record)
            case roll if roll < 93:
                now += pick.one((0, SECOND, 3 * SECOND))
                records.append(TickRecord(offset, now))
            case roll if roll < 95:
                records.append(NothingRecord(offset))
            case 95:
                now += pick.one(JUMPS)
                records.append(TickRecord(offset, now))
            case 96 | 97:
                told = seq + pick.number(-1, 1)
                seq = max(seq, told)
                records.append(SwitchRecord(offset, now, "unknown", told, None))
            case 98:
                ruleset = pick.one(rulesets)
                told = seq + pick.number(-1, 1)
                seq = max(seq, told)
                records.append(SwitchRecord(offset, now, ruleset.id, told, ruleset))
            case _:
                now -= 2 * SECOND
                records.append(EventsRecord(offset, now, (a_row(pick, now),)))
    return records


def some_sizes(pick: Pick, total: int) -> tuple[int, ...]:
    """Sizes of the chunks of a log: all in one, one by one, or anything between."""
    match pick.one(("any", "one", "all")):
        case "one":
            return (1,) * total
        case "all":
            return (total,)
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(pick.one((1, 2, 3, 5, 8, 13, 34)))
    return tuple(sizes)
