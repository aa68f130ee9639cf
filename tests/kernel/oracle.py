"""docs/semantics.md as plainly as it can be written: what the kernel must agree with, byte for byte.

Every accepted row is kept for good, every window is a scan of all of them, numbers are fractions. Slow and obvious.
It imports nothing of the kernel but the name of an origin, and the sections are those of the definition.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple

from schemas.alert import Evidence, Reason, Status, Transition, Window, fingerprint
from schemas.expression import AllOf, Among, AnyOf, Compare, Everything, Exists, FieldReference, Not, Predicate, Scalar
from schemas.message import render
from schemas.number import SCALE, exact_fixed, to_fixed
from schemas.rule import SEVERITIES, Count, Max, Mean, Min, Rate, Ratio, Regression, Rule, Severity, Sum, Threshold, label_name
from tests.kernel.log import SECOND, EventsRecord, NothingRecord, Record, Row, SwitchRecord, TickRecord

AHEAD: Final = 10 * SECOND
IDLE_GRACE: Final = 3 * SECOND
Key = tuple[str, ...]


class Accepted(NamedTuple):
    """A row that was added to a group. `ts` stands for its slice, since windows begin and end with slices."""

    offset: int
    index: int
    ts: int
    weight: int
    value: Fraction
    of: bool


@dataclass(slots=True)
class Episode:
    opened_at: int
    offset: int
    index: int
    since: dict[Severity, int] = field(default_factory=dict)
    severity: Severity | None = None
    recovering: int | None = None
    valued_at: int = 0
    baseline: tuple[Fraction, int] | None = None
    ordinal: int = 0


@dataclass(slots=True)
class Group:
    first_at: int
    last_at: int
    rows: list[Accepted] = field(default_factory=list)
    episode: Episode | None = None


@dataclass(slots=True)
class RuleState:
    rule: Rule
    groups: dict[Key, Group] = field(default_factory=dict)


class Place(NamedTuple):
    """The record, and the row in it, that a judgement is due to."""

    offset: int
    index: int
    append_time: int


class Look(NamedTuple):
    """What a window shows."""

    window: Window
    value: Fraction | None
    count: int
    baseline: tuple[Fraction, int] | None
    evidence: tuple[Evidence, ...] | None


class Said(NamedTuple):
    """A transition and its place among those of one row (section 7)."""

    at: int
    rule: str
    group: Key
    transition: Transition


# --- 3: selections, numbers, windows ------------------------------------------------------------------------------


def field_of(row: Row, reference: FieldReference) -> Scalar | None:
    """A field of the row, None where it has no such field."""
    if reference.attribute:
        found = row.fields.get("attributes", {}).get(reference.field)
    elif reference.field in ("ts", "weight"):
        found = getattr(row, reference.field)
    else:
        found = row.fields.get(reference.field)
    return found if isinstance(found, str | bool | int | float) else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def equals(found: Scalar | None, value: Scalar) -> bool:
    """Text equals text, booleans equal booleans, numbers equal numbers."""
    if is_number(found):
        return is_number(value) and found == value
    return type(found) is type(value) and found == value


def matches(predicate: Predicate, row: Row) -> bool:
    """Whether the row is selected."""
    match predicate:
        case Everything():
            return True
        case Not():
            return not matches(predicate.of, row)
        case AllOf():
            return all(matches(each, row) for each in predicate.of)
        case AnyOf():
            return any(matches(each, row) for each in predicate.of)
        case Exists():
            return field_of(row, predicate.left) is not None
        case Among():
            return any(equals(field_of(row, predicate.left), value) for value in predicate.values)
        case Compare():
            return compares(field_of(row, predicate.left), predicate.comparison, predicate.value)


def compares(found: Any, comparison: str, value: Any) -> bool:
    if comparison in ("==", "!="):
        return equals(found, value) == (comparison == "==")
    if not is_number(found):
        return False
    return {"<": found < value, "<=": found <= value, ">": found > value, ">=": found >= value}[comparison]


def label(value: Scalar | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def group_of(rule: Rule, row: Row) -> Key:
    references = [FieldReference(field=label_name(name), attribute=name.startswith("attributes.")) for name in rule.by]
    return tuple(label(field_of(row, reference)) for reference in references)


def baseline_of(rule: Rule) -> int:
    return rule.measure.baseline if isinstance(rule.measure, Regression) else 0


def end_of_window(rule: Rule, now: int) -> int:
    """The smallest multiple of `every` that is greater than `now`."""
    return (now // rule.every + 1) * rule.every


def is_quantity(rule: Rule) -> bool:
    return isinstance(rule.measure, Count | Rate | Sum)


def is_full_only(rule: Rule, threshold: Threshold) -> bool:
    return is_quantity(rule) and threshold.comparison != "above"


def has_full_only_level(rule: Rule) -> bool:
    return any(is_full_only(rule, level.when) for level in rule.levels)


def within(group: Group, start: int, end: int) -> list[Accepted]:
    return [row for row in group.rows if start <= row.ts < end]


def total(rows: list[Accepted]) -> tuple[Fraction, int]:
    return sum((row.weight * row.value for row in rows), Fraction(0)), sum(row.weight for row in rows)


def value_of(rule: Rule, rows: list[Accepted], baseline: tuple[Fraction, int] | None) -> Fraction | None:
    """The value of the measure over `rows`, the rows of a window."""
    summed, count = total(rows)
    match rule.measure:
        case Count():
            return Fraction(count)
        case Rate():
            return Fraction(count * SECOND, rule.over)
        case Sum():
            return summed
    if count == 0:
        return None
    match rule.measure:
        case Ratio():
            return Fraction(sum(row.weight for row in rows if row.of), count)
        case Mean():
            return summed / count
        case Min():
            return min(row.value for row in rows)
        case Max():
            return max(row.value for row in rows)
    if baseline is None or baseline[1] == 0 or baseline[0] <= 0:
        return None
    return (summed / count) / (baseline[0] / baseline[1]) - 1


def evaluate(threshold: Threshold, value: Fraction | None, count: int) -> bool | None:
    """Whether the threshold holds; None: unknown."""
    if value is None or count < threshold.at_least:
        return None
    number, tolerance = (Fraction(exact_fixed(each), SCALE) for each in (threshold.value, threshold.tolerance))
    if threshold.comparison == "equal":
        return abs(value - number) <= tolerance
    return value > number if threshold.comparison == "above" else value < number


def number_of(threshold: Threshold | None) -> float | tuple[float, float] | None:
    if threshold is None or not threshold.tolerance:
        return threshold and threshold.value
    value, tolerance = exact_fixed(threshold.value), exact_fixed(threshold.tolerance)
    return (value - tolerance) / SCALE, (value + tolerance) / SCALE


def aggregate(rule: Rule) -> str:
    """What must be unchanged for a rule to keep its state at a switch."""
    document = rule.document()
    return json.dumps([document[name] for name in ("select", "by", "every", "measure")], sort_keys=True)


# --- the partition ------------------------------------------------------------------------------------------------


class Oracle:
    """One partition, one record at a time."""

    def __init__(self, topic: str, partition: int, max_groups: int = 100_000) -> None:
        self.topic = topic
        self.partition = partition
        self.max_groups = max_groups
        self.applied = -1
        self.stream_time = 0
        self.seq = 0
        self.markers: dict[int, tuple[int, int]] = {}
        self.states: dict[str, RuleState] = {}
        self.late: Counter[str] = Counter()
        self.overflow: Counter[str] = Counter()
        self.counted = 0
        self.duplicates = 0
        self.unreadable: list[str] = []

    def apply(self, record: Record) -> Iterator[Transition]:
        """Yields the transitions of `record`, in order."""
        if record.offset <= self.applied:
            return
        match record:
            case EventsRecord():
                for index, row in enumerate(record.rows):
                    yield from in_order(self.row(Place(record.offset, index, record.append_time), row))
            case TickRecord():
                yield from in_order(self.move(Place(record.offset, 0, record.append_time), record.append_time - IDLE_GRACE))
            case SwitchRecord():
                yield from in_order(self.switch(Place(record.offset, 0, record.append_time), record))
            case NothingRecord():
                pass
        self.applied = record.offset

    def row(self, place: Place, row: Row) -> Iterator[Said]:
        yield from self.move(place, min(row.ts, place.append_time + AHEAD))
        if row.origin is not None:
            found = (row.origin.offset, row.origin.index)
            if found <= self.markers.get(row.origin.partition, (-1, -1)):
                self.duplicates += 1
                return
            self.markers[row.origin.partition] = found
        if not row.local:
            return
        self.counted += 1
        for state in self.states.values():
            yield from self.count(place, state, row)

    def move(self, place: Place, candidate: int) -> Iterator[Said]:
        """Sections 2 and 4: move stream time, and judge every group at every boundary that it crosses."""
        before, after = self.stream_time, max(self.stream_time, candidate)
        self.stream_time = after
        if before == 0:
            return
        for state in self.states.values():
            every = state.rule.every
            boundary = (before // every + 1) * every
            while boundary <= after and state.groups:
                for key, group in list(state.groups.items()):
                    yield from self.judge(place, state, key, group, boundary, at_boundary=True)
                    if is_idle(state.rule, group, boundary):
                        del state.groups[key]
                boundary += every

    def count(self, place: Place, state: RuleState, row: Row) -> Iterator[Said]:
        """Section 3: add a row to its group, and judge the group."""
        rule, now = state.rule, self.stream_time
        if not matches(rule.select, row):
            return
        value: Any = 0
        if not isinstance(rule.measure, Count | Rate | Ratio):
            value = field_of(row, rule.measure.field)
            if not is_number(value):
                return
        if row.ts // rule.every * rule.every < end_of_window(rule, now) - rule.over - baseline_of(rule):
            self.late[rule.name] += 1
            return
        key = group_of(rule, row)
        if key not in state.groups:
            if len(state.groups) >= self.max_groups:
                self.overflow[rule.name] += 1
                return
            state.groups[key] = Group(first_at=now, last_at=now)
        group = state.groups[key]
        group.last_at = now
        of = isinstance(rule.measure, Ratio) and matches(rule.measure.of, row)
        group.rows.append(Accepted(place.offset, place.index, row.ts, row.weight, Fraction(to_fixed(value), SCALE), of))
        yield from self.judge(place, state, key, group, now, at_boundary=False)

    def look(self, rule: Rule, group: Group, start: int, end: int) -> Look:
        """What the window [start, end) shows."""
        rows = within(group, start, end)
        baseline = total(within(group, start - baseline_of(rule), start))
        if group.episode is not None and group.episode.baseline is not None:
            baseline = group.episode.baseline
        offsets = [row.offset for row in rows]
        evidence = None
        if rows:
            first, last = min(offsets), max(offsets)
            evidence = (
                Evidence(topic=self.topic, partition=self.partition, first_offset=first, last_offset=last, events=len(rows)),
            )
        return Look(Window(start=start, end=end), value_of(rule, rows, baseline), total(rows)[1], baseline, evidence)

    # --- 5: lifecycle ---------------------------------------------------------------------------------------------

    def judge(self, place: Place, state: RuleState, key: Key, group: Group, now: int, *, at_boundary: bool) -> Iterator[Said]:
        rule, quantity = state.rule, is_quantity(state.rule)
        end = end_of_window(rule, now)
        judged = self.look(rule, group, end - rule.over, end)
        full = self.look(rule, group, now - rule.over, now) if at_boundary and group.first_at <= now - rule.over else None

        # 1 and 2
        verdicts: dict[Severity, bool | None] = {}
        looks: dict[Severity, Look | None] = {}
        for level in rule.levels:
            look = looks[level.severity] = full if is_full_only(rule, level.when) else judged
            verdicts[level.severity] = None if look is None else evaluate(level.when, look.value, look.count)
        holding = [severity for severity in SEVERITIES if verdicts.get(severity)]
        # 3
        if group.episode is None and holding:
            baseline = judged.baseline if baseline_of(rule) else None
            group.episode = Episode(opened_at=now, offset=place.offset, index=place.index, baseline=baseline)
        episode = group.episode
        if episode is None:
            return
        for severity, verdict in verdicts.items():
            if verdict:
                episode.since.setdefault(severity, now)
            elif verdict is False:
                episode.since.pop(severity, None)
        # 4
        fired_now = False
        ripe = [severity for severity in holding if now - episode.since[severity] >= rule.hold_for]
        if ripe and (episode.severity is None or SEVERITIES.index(ripe[-1]) > SEVERITIES.index(episode.severity)):
            fired_now = episode.severity is None
            episode.severity = ripe[-1]
            if fired_now:
                episode.valued_at = now
            reason = Reason.CONDITION_MET if fired_now else Reason.SEVERITY_RAISED
            yield self.said(place, state, key, group, now, reason, looks[ripe[-1]], level_of(rule, ripe[-1]))
        # 5
        if episode.severity is None:
            if not episode.since:
                group.episode = None
            return
        # 6
        deciding = full if quantity else judged
        recovered = None if quantity and not at_boundary else recovery(rule, deciding)
        if recovered is False:
            episode.recovering = None
        elif recovered:
            if episode.recovering is None:
                episode.recovering = now
            if now - episode.recovering >= rule.keep_firing_for and not fired_now:
                threshold = rule.recover or level_of(rule, episode.severity)
                yield self.said(place, state, key, group, now, Reason.RECOVERED, deciding, threshold)
                group.episode = None
                return
        # 7
        if not at_boundary or fired_now:
            return
        if any(verdict is not None for verdict in verdicts.values()):
            episode.valued_at = now
        silent_since = group.last_at if has_full_only_level(rule) else episode.valued_at
        if now - silent_since >= rule.no_data_after:
            nothing = judged._replace(value=None, evidence=None)
            yield self.said(place, state, key, group, now, Reason.NO_DATA, nothing, level_of(rule, episode.severity))
            group.episode = None

    # --- 6: switch ------------------------------------------------------------------------------------------------

    def switch(self, place: Place, record: SwitchRecord) -> Iterator[Said]:
        if record.seq <= self.seq:
            return
        self.seq = record.seq
        if record.ruleset is None:
            self.unreadable.append(record.id)
            return
        before, self.states = self.states, {rule.name: RuleState(rule) for rule in record.ruleset.rules}
        for name, old in before.items():
            new = self.states.get(name)
            if new is not None and aggregate(new.rule) == aggregate(old.rule):
                self.keep(old, new)
                continue
            for key, group in old.groups.items():
                if group.episode is not None and group.episode.severity is not None:
                    yield self.said(place, old, key, group, self.stream_time, Reason.RULE_REMOVED, None, None)

    def keep(self, old: RuleState, new: RuleState) -> None:
        """Hand the groups over. What had left the windows of the old rule was dropped by it."""
        start = end_of_window(old.rule, self.stream_time) - old.rule.over - baseline_of(old.rule)
        severities = {level.severity for level in new.rule.levels}
        for group in old.groups.values():
            group.rows = [row for row in group.rows if row.ts >= start]
            if group.episode is not None:
                group.episode.since = {severity: at for severity, at in group.episode.since.items() if severity in severities}
        new.groups = old.groups

    # --- 7: transitions -------------------------------------------------------------------------------------------

    def said(
        self,
        place: Place,
        state: RuleState,
        key: Key,
        group: Group,
        now: int,
        reason: Reason,
        look: Look | None,
        threshold: Threshold | None,
    ) -> Said:
        rule, episode = state.rule, group.episode
        assert episode is not None
        assert episode.severity is not None
        kind = {Reason.CONDITION_MET: "fired", Reason.SEVERITY_RAISED: "raised"}.get(reason, "resolved")
        status: Status = "resolved" if kind == "resolved" else "firing"
        labels = {label_name(name): text for name, text in zip(rule.by, key, strict=True)}
        value = None if look is None or look.value is None else float(look.value)
        number = number_of(threshold)
        message = ("Resolved: " if kind == "resolved" else "") + render(rule, labels, episode.severity, value, number)
        pairs = [list(pair) for pair in sorted(labels.items())]
        dedup_key = fingerprint(rule.name, pairs, self.topic, self.partition, episode.offset, episode.index, episode.opened_at)
        transition = Transition(
            id=fingerprint(dedup_key, rule.revision, kind, episode.ordinal),
            dedup_key=dedup_key,
            rule=rule.name,
            revision=rule.revision,
            status=status,
            severity=episode.severity,
            source=labels["service"],
            tenant=labels["tenant"],
            labels=labels,
            annotations=rule.annotations | {"summary": message} | ({"runbook": rule.runbook} if rule.runbook else {}),
            message=message,
            details={"cooldown": rule.cooldown, "kind": kind, "ordinal": episode.ordinal, "partition": self.partition}
            | place._asdict(),
            value=value,
            threshold=number,
            unit=rule.unit or None,
            window=None if look is None else look.window,
            started_at=episode.opened_at,
            timestamp=now,
            decided_at=now,
            resolved_at=now if kind == "resolved" else None,
            reason=reason,
            channels=rule.channels,
            evidence=None if look is None else look.evidence,
        )
        episode.ordinal += 1
        return Said(now, rule.name, key, transition)


def level_of(rule: Rule, severity: Severity) -> Threshold | None:
    """The threshold of a severity; None where a switch took the level away."""
    levels: Mapping[Severity, Threshold] = {level.severity: level.when for level in rule.levels}
    return levels.get(severity)


def recovery(rule: Rule, look: Look | None) -> bool | None:
    """The recovery verdict; None: unknown."""
    if look is None:
        return None
    verdicts = [evaluate(level.when, look.value, look.count) for level in rule.levels]
    if any(verdicts):
        return False
    if None in verdicts:
        return None
    return evaluate(rule.recover, look.value, look.count) if rule.recover is not None else True


def is_idle(rule: Rule, group: Group, now: int) -> bool:
    """Whether the group is forgotten at the boundary `now`."""
    if group.episode is not None:
        return False
    if has_full_only_level(rule):
        return now - group.last_at >= rule.no_data_after
    start = end_of_window(rule, now) - rule.over - baseline_of(rule)
    return all(row.ts // rule.every * rule.every < start for row in group.rows)


def in_order(said: Iterator[Said]) -> list[Transition]:
    """The transitions of one row in the order of section 7."""
    return [each.transition for each in sorted(said, key=lambda each: each[:3])]
