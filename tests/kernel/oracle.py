"""docs/semantics.md as plainly as it can be written: what the kernel must agree with, byte for byte.

Every accepted row is kept for good, every window is a scan of all of them, numbers are fractions. Slow and obvious.
It imports nothing of the kernel but the names of origins, and the sections are those of the definition.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, NamedTuple

from schemas.alert import RULE_FAILING, Evidence, Reason, Status, Transition, Window, fingerprint
from schemas.condition import SEVERITIES, Severity, Threshold
from schemas.measure import Count, Rate, Ratio
from schemas.message import render
from schemas.number import SCALE, to_fixed
from schemas.rule import Rule, label_name
from streams.kernel.columns import Redriven
from tests.kernel.log import SECOND, EventsRecord, NothingRecord, Record, Row, SwitchRecord, TickRecord
from tests.kernel.measuring import (
    Accepted,
    Key,
    baseline_of,
    end_of_window,
    evaluate,
    field_of,
    group_of,
    has_full_only_level,
    is_full_only,
    is_number,
    is_quantity,
    level_of,
    matches,
    number_of,
    total,
    value_of,
    within,
)

FAULT: Final = "ZeroDivisionError"
"""What the rules raise that raise."""
AHEAD: Final = 10 * SECOND
IDLE_GRACE: Final = 3 * SECOND
REMEMBERED: Final = 14 * 86_400 * SECOND


@dataclass(slots=True)
class Episode:
    opened_at: int
    offset: int
    index: int
    valued_at: int
    since: dict[Severity, int] = field(default_factory=dict)
    severity: Severity | None = None
    recovering: int | None = None
    baseline: tuple[Fraction, int] | None = None
    ordinal: int = 0


@dataclass(slots=True)
class Group:
    first_at: int
    last_at: int
    rows: list[Accepted] = field(default_factory=list)
    episode: Episode | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Section 8: the record at which a rule failed, and stream time then."""

    offset: int
    at: int
    error: str


@dataclass(slots=True)
class RuleState:
    rule: Rule
    groups: dict[Key, Group] = field(default_factory=dict)
    failure: Failure | None = None


class RuleError(Exception):
    """A rule raises."""

    def __init__(self, rule: str) -> None:
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Place:
    """The record, and the row in it, that a judgement is due to."""

    offset: int
    index: int
    append_time: int


@dataclass(frozen=True, slots=True)
class Look:
    """What a window shows."""

    window: Window
    value: Fraction | None
    count: int
    baseline: tuple[Fraction, int] | None
    evidence: tuple[Evidence, ...] | None


class Said(NamedTuple):
    """A transition and its place among those of one record (section 7)."""

    row: int
    at: int
    rule: str
    group: Key
    transition: Transition


class Oracle:
    """One partition, one record at a time. `raises` says which rules raise when they are touched or judged by an offset."""

    def __init__(
        self,
        topic: str,
        partition: int,
        max_groups: int = 100_000,
        max_redriven: int = 10_000,
        raises: Callable[[Rule, int], bool] | None = None,
    ) -> None:
        self.raises = raises
        self.topic = topic
        self.partition = partition
        self.max_groups = max_groups
        self.max_redriven = max_redriven
        self.applied = -1
        self.stream_time = 0
        self.seq = 0
        self.ruleset: str | None = None
        self.markers: dict[int, tuple[int, int]] = {}
        self.redriven: dict[int, int] = {}
        self.refused: dict[int, str] = {}
        self.repeated: set[int] = set()
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
        raises = self.raises
        if raises is not None and any(raises(state.rule, record.offset) for state in self.states.values() if not state.failure):
            yield from in_order(iter(self.taken_without_failing(record)))
        else:
            yield from in_order(self.taken(record))
        self.applied = record.offset

    def taken(self, record: Record) -> Iterator[Said]:
        match record:
            case EventsRecord():
                for index, row in enumerate(record.rows):
                    yield from self.row(Place(record.offset, index, record.append_time), row, record.redriven)
            case TickRecord():
                yield from self.move(Place(record.offset, 0, record.append_time), record.append_time - IDLE_GRACE)
            case SwitchRecord():
                yield from self.switch(Place(record.offset, 0, record.append_time), record)
            case NothingRecord():
                pass

    def taken_without_failing(self, record: Record) -> list[Said]:
        """Section 8: as often as a rule raises, the record is taken once more without it."""
        before = copy.deepcopy({name: value for name, value in vars(self).items() if name != "raises"})
        failing: list[str] = []
        while True:
            for name in failing:
                self.states[name].failure = Failure(record.offset, self.first_time(record), FAULT)
            try:
                said = list(self.taken(record))
            except RuleError as error:
                failing.append(error.rule)
                vars(self).update(copy.deepcopy(before))
                continue
            for name in failing:
                assert not isinstance(record, NothingRecord)
                state = self.states[name]
                said.append(self.failing(Place(record.offset, 0, record.append_time), state, Reason.RULE_FAILING))
            return said

    def first_time(self, record: Record) -> int:
        """Stream time after the first row of `record`."""
        match record:
            case EventsRecord(append_time=append_time, rows=(row, *_)):
                return max(self.stream_time, min(row.ts, append_time + AHEAD))
            case TickRecord(append_time=append_time):
                return max(self.stream_time, append_time - IDLE_GRACE)
            case _:
                return self.stream_time

    def touch(self, state: RuleState, place: Place) -> None:
        """Raises RuleError where the rule does."""
        if self.raises is not None and self.raises(state.rule, place.offset):
            raise RuleError(state.rule.name)

    def row(self, place: Place, row: Row, redriven: Redriven | None = None) -> Iterator[Said]:
        yield from self.move(place, min(row.ts, place.append_time + AHEAD))
        if redriven is not None and place.index == 0:
            self.admit(place.offset, redriven)
        if place.offset in self.repeated:
            self.duplicates += 1
        if place.offset in self.repeated | self.refused.keys():
            return
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
            if state.failure is None:
                yield from self.count(place, state, row)

    def admit(self, offset: int, origin: Redriven) -> None:
        """Section 1: whether a redriven record counts."""
        oldest = self.stream_time - REMEMBERED
        remembered = {place for place, appended in self.redriven.items() if appended > oldest}
        if origin.append_time <= oldest:
            self.refused[offset] = "expired"
        elif origin.offset in remembered:
            self.repeated.add(offset)
        elif len(remembered) >= self.max_redriven:
            self.refused[offset] = "overflow"
        else:
            self.redriven[origin.offset] = origin.append_time

    def move(self, place: Place, candidate: int) -> Iterator[Said]:
        """Sections 2 and 4: move stream time, and judge every group at every boundary that it crosses."""
        before, after = self.stream_time, max(self.stream_time, candidate)
        self.stream_time = after
        for state in self.states.values():
            every = state.rule.every
            boundary = (before // every + 1) * every
            while boundary <= after and state.groups and state.failure is None:
                self.touch(state, place)
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
        self.touch(state, place)
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
        rows = within(group.rows, start, end)
        baseline = total(within(group.rows, start - baseline_of(rule), start))
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
        rule, end = state.rule, end_of_window(state.rule, now)
        judged = self.look(rule, group, end - rule.over, end)
        full = self.look(rule, group, now - rule.over, now) if at_boundary and group.first_at <= now - rule.over else None
        looks = {level.severity: full if is_full_only(rule, level.when) else judged for level in rule.levels}

        # 1 to 3
        verdicts = {level.severity: verdict(level.when, looks[level.severity]) for level in rule.levels}
        if group.episode is None and any(verdicts.values()):
            baseline = judged.baseline if baseline_of(rule) else None
            group.episode = Episode(opened_at=now, offset=place.offset, index=place.index, valued_at=now, baseline=baseline)
        episode = group.episode
        if episode is None:
            return
        for severity, holds in verdicts.items():
            if holds:
                episode.since.setdefault(severity, now)
            elif holds is False:
                episode.since.pop(severity, None)

        # 4, and 5 and 7 for a pending episode
        ripe = [severity for severity in verdicts if verdicts[severity] and now - episode.since[severity] >= rule.hold_for]
        if at_boundary and any(holds is not None for holds in verdicts.values()):
            episode.valued_at = now
        silent_since = group.last_at if has_full_only_level(rule) else episode.valued_at
        no_data = at_boundary and now - silent_since >= rule.no_data_after
        if episode.severity is None:
            if ripe:
                episode.severity, episode.valued_at = ripe[-1], now
                yield self.said(place, state, key, group, now, Reason.CONDITION_MET, looks[ripe[-1]], level_of(rule, ripe[-1]))
            elif no_data or not episode.since:
                group.episode = None
            return

        # 6 and 7, and the raise of 4 if neither resolves the episode
        deciding = full if is_quantity(rule) else judged
        if self.recovers(rule, episode, deciding, now):
            threshold = rule.recover or level_of(rule, episode.severity)
            yield self.said(place, state, key, group, now, Reason.RECOVERED, deciding, threshold)
            group.episode = None
        elif no_data:
            nothing = replace(judged, value=None, evidence=None)
            yield self.said(place, state, key, group, now, Reason.NO_DATA, nothing, level_of(rule, episode.severity))
            group.episode = None
        elif ripe and SEVERITIES.index(ripe[-1]) > SEVERITIES.index(episode.severity):
            episode.severity = ripe[-1]
            yield self.said(place, state, key, group, now, Reason.SEVERITY_RAISED, looks[ripe[-1]], level_of(rule, ripe[-1]))

    def recovers(self, rule: Rule, episode: Episode, look: Look | None, now: int) -> bool:
        """Step 6: whether a firing episode is resolved, going by what `look` shows. None shows nothing."""
        recovered = recovery(rule, look)
        if recovered is False:
            episode.recovering = None
        if not recovered:
            return False
        if episode.recovering is None:
            episode.recovering = now
        return now - episode.recovering >= rule.keep_firing_for

    # --- 6: switch ------------------------------------------------------------------------------------------------

    def switch(self, place: Place, record: SwitchRecord) -> Iterator[Said]:
        if record.seq == self.seq and record.id == self.ruleset:
            for name, state in self.states.items():
                if state.failure is not None:
                    yield from self.ended(place, state, Reason.RECOVERED)
                    self.states[name] = RuleState(state.rule)
        if record.seq <= self.seq:
            return
        self.seq = record.seq
        if record.ruleset is None:
            self.unreadable.append(record.id)
            return
        self.ruleset = record.id
        before, self.states = self.states, {rule.name: RuleState(rule) for rule in record.ruleset.rules}
        for name, old in before.items():
            new = self.states.get(name)
            if new is not None and old.failure is not None and new.rule.revision == old.rule.revision:
                self.states[name] = old
                continue
            if new is not None and old.failure is None and aggregate(new.rule) == aggregate(old.rule):
                self.keep(old, new)
                continue
            yield from self.ended(place, old, Reason.RULE_REMOVED if new is None else Reason.RECOVERED)

    def ended(self, place: Place, state: RuleState, reason: Reason) -> Iterator[Said]:
        """What is said when the state of a rule goes; of a failure it is said for `reason` that it is over."""
        for key, group in state.groups.items():
            if group.episode is not None and group.episode.severity is not None:
                yield self.said(place, state, key, group, self.stream_time, Reason.RULE_REMOVED, None, None)
        if state.failure is not None:
            yield self.failing(place, state, reason)

    def keep(self, old: RuleState, new: RuleState) -> None:
        """Hand the groups over. What had left the windows of the old rule was dropped by it."""
        start = end_of_window(old.rule, self.stream_time) - old.rule.over - baseline_of(old.rule)
        severities = {level.severity for level in new.rule.levels}
        for group in old.groups.values():
            group.rows = [row for row in group.rows if row.ts >= start]
            if group.episode is not None:
                group.episode.since = {severity: at for severity, at in group.episode.since.items() if severity in severities}
        new.groups = old.groups

    # --- 8: failures ----------------------------------------------------------------------------------------------

    def failing(self, place: Place, state: RuleState, reason: Reason) -> Said:
        """The transition that says that a rule fails, or for what reason it no longer does."""
        rule, failure, fires = state.rule, state.failure, reason is Reason.RULE_FAILING
        assert failure is not None
        now = failure.at if fires else self.stream_time
        labels = {"tenant": "tocsin", "service": "tocsin", "rule": rule.name}
        pairs = [list(pair) for pair in sorted(labels.items())]
        dedup_key = fingerprint(RULE_FAILING, pairs, self.topic, self.partition, failure.offset, 0, failure.at)
        kind, ordinal = ("fired", 0) if fires else ("resolved", 1)
        summary = (
            f"Rule '{rule.name}' fails on partition {self.partition} with {failure.error} at offset {failure.offset}, and is not "
            "judged there any more; deploy a changed revision of it, or the same once more with `tocsin deploy --again`"
        )
        message = summary if fires else f"Resolved: {summary}"
        transition = Transition(
            id=fingerprint(dedup_key, rule.revision, kind, ordinal),
            dedup_key=dedup_key,
            rule=RULE_FAILING,
            revision=rule.revision,
            status="firing" if fires else "resolved",
            severity="critical",
            source="tocsin",
            tenant="tocsin",
            labels=labels,
            annotations={"summary": message},
            message=message,
            details={"cooldown": 900 * SECOND, "kind": kind, "ordinal": ordinal, "partition": self.partition} | asdict(place),
            value=None,
            threshold=None,
            window=None,
            started_at=failure.at,
            timestamp=now,
            decided_at=now,
            resolved_at=None if fires else now,
            reason=reason,
            channels=rule.channels,
        )
        return Said(place.index, now, RULE_FAILING, (rule.name,), transition)

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
        summary = render(rule, labels, episode.severity, value, number_of(level_of(rule, episode.severity)))
        message = f"Resolved: {summary}" if kind == "resolved" else summary
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
            | asdict(place),
            value=value,
            threshold=number_of(threshold),
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
        return Said(place.index, now, rule.name, key, transition)


def aggregate(rule: Rule) -> str:
    """What must be unchanged for a rule to keep its state at a switch."""
    document = rule.document()
    return json.dumps([document[name] for name in ("select", "by", "every", "measure")], sort_keys=True)


def verdict(threshold: Threshold, look: Look | None) -> bool | None:
    """Whether the threshold holds; None: unknown."""
    return None if look is None else evaluate(threshold, look.value, look.count)


def recovery(rule: Rule, look: Look | None) -> bool | None:
    """The recovery verdict; None: unknown."""
    verdicts = [verdict(level.when, look) for level in rule.levels]
    if any(verdicts):
        return False
    if None in verdicts:
        return None
    return True if rule.recover is None else verdict(rule.recover, look)


def is_idle(rule: Rule, group: Group, now: int) -> bool:
    """Whether the group is forgotten at the boundary `now`."""
    if group.episode is not None:
        return False
    if has_full_only_level(rule):
        return now - group.last_at >= rule.no_data_after
    start = end_of_window(rule, now) - rule.over - baseline_of(rule)
    return all(row.ts // rule.every * rule.every < start for row in group.rows)


def in_order(said: Iterator[Said]) -> list[Transition]:
    """The transitions of one record in the order of section 7."""
    return [each.transition for each in sorted(said, key=lambda each: each[:4])]
