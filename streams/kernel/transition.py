"""Transitions: a decision of the kernel as the record that tells it, with its identity and its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.alert import Evidence, Reason, Transition, Window, fingerprint
from schemas.condition import SEVERITIES
from schemas.message import render
from schemas.rule import label_name
from streams.kernel.aggregates import Aggregate
from streams.kernel.judge import Bound, Plan, Windows
from streams.kernel.lifecycle import Fired, Firing, Raised, Resolved
from streams.kernel.slices import Reach

_KINDS = {Fired: "fired", Raised: "raised", Resolved: "resolved"}


@dataclass(frozen=True, slots=True)
class Decider:
    """The record that decided, its append time, and the stream time of the judgement."""

    offset: int
    index: int
    append_time: int
    at: int


class _Deciding(NamedTuple):
    window: Aggregate | None
    start: int
    end: int
    bound: Bound | None


def make_transition(
    plan: Plan,
    key: tuple[str, ...],
    episode: Firing,
    outcome: Fired | Raised | Resolved,
    decider: Decider,
    windows: Windows | None,
    reach: Reach | None,
    source: tuple[str, int],
) -> Transition:
    """The transition of `episode` (as it is after it fired or rose, as it was before it resolved).

    `windows` and `reach` are those of the judgement, None for a rule that went. `source` is (topic, partition).
    """
    rule, (topic, partition) = plan.rule, source
    labels = {label_name(name): text for name, text in zip(rule.by, key, strict=True)}
    kind = _KINDS[type(outcome)]
    ordinal = episode.ordinal if isinstance(outcome, Resolved) else episode.ordinal - 1
    opening = episode.opening
    dedup_key = fingerprint(
        rule.name,
        sorted([name, text] for name, text in labels.items()),
        topic,
        partition,
        opening.offset,
        opening.index,
        opening.opened_at,
    )
    severity = SEVERITIES[episode.rank]
    deciding = _deciding(plan, episode, outcome, windows, reach)
    aggregate = deciding.window
    value = None
    if aggregate is not None and windows is not None:
        exact = plan.value(aggregate, windows.baseline)
        value = None if exact is None else exact[0] / exact[1]
    threshold = None if deciding.bound is None else deciding.bound.shown
    message = render(rule, labels, severity, value, threshold)
    if isinstance(outcome, Resolved):
        # What ended is what was fired, so it is told with the threshold that was passed, not with that of the recovery.
        passed = _bound_of(plan, episode)
        message = f"Resolved: {render(rule, labels, severity, value, None if passed is None else passed.shown)}"
    details: dict[str, Any] = {
        "cooldown": rule.cooldown,
        "kind": kind,
        "ordinal": ordinal,
        "partition": partition,
        "offset": decider.offset,
        "index": decider.index,
        "append_time": decider.append_time,
    }
    return Transition(
        id=fingerprint(dedup_key, plan.revision, kind, ordinal),
        dedup_key=dedup_key,
        rule=rule.name,
        revision=plan.revision,
        status="resolved" if isinstance(outcome, Resolved) else "firing",
        severity=severity,
        source=labels["service"],
        tenant=labels["tenant"],
        labels=labels,
        annotations={**rule.annotations, "summary": message} | ({"runbook": rule.runbook} if rule.runbook else {}),
        message=message,
        details=details,
        value=value,
        threshold=threshold,
        unit=rule.unit or None,
        window=None if reach is None else Window(start=deciding.start, end=deciding.end),
        started_at=opening.opened_at,
        timestamp=decider.at,
        decided_at=decider.at,
        resolved_at=decider.at if isinstance(outcome, Resolved) else None,
        reason=_reason(outcome),
        channels=rule.channels,
        evidence=_evidence(aggregate, topic, partition),
    )


def _deciding(
    plan: Plan, episode: Firing, outcome: Fired | Raised | Resolved, windows: Windows | None, reach: Reach | None
) -> _Deciding:
    """The window and the threshold that decided."""
    if windows is None or reach is None:
        return _Deciding(None, 0, 0, None)
    every = plan.every
    judged = (reach.first * every, (reach.current + 1) * every)
    if isinstance(outcome, Resolved):
        bound = _bound_of(plan, episode)
        if outcome.reason is not Reason.RECOVERED:
            return _Deciding(None, *judged, bound)
        bound = plan.recover or bound
        on_full = plan.quantity
    else:
        bound = plan.levels[outcome.level]
        on_full = bound.full_only
    if on_full:
        return _Deciding(windows.full, judged[0] - every, judged[1] - every, bound)
    return _Deciding(windows.judged, *judged, bound)


def _bound_of(plan: Plan, episode: Firing) -> Bound | None:
    """The threshold of the severity that the episode has; None where a deploy took that level away."""
    return next((bound for bound, rank in zip(plan.levels, plan.ranks, strict=True) if rank == episode.rank), None)


def _reason(outcome: Fired | Raised | Resolved) -> Reason:
    match outcome:
        case Fired():
            return Reason.CONDITION_MET
        case Raised():
            return Reason.SEVERITY_RAISED
        case Resolved(reason=reason):
            return reason


def _evidence(window: Aggregate | None, topic: str, partition: int) -> tuple[Evidence, ...] | None:
    if window is None or window.events == 0:
        return None
    return (
        Evidence(
            topic=topic,
            partition=partition,
            first_offset=window.first_offset,
            last_offset=window.last_offset,
            events=window.events,
        ),
    )
