"""Conditions: when a value is worth an alert, and the four conditions of the specification beside absence."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.expression import AllOf, Everything, FieldReference, Operand, Predicate, event, type_of
from schemas.measure import Count, Frozen, Mean, Measure, Ratio, Regression, reference_to
from schemas.number import exact_fixed
from schemas.time import Duration, duration_text, to_duration

Severity = Literal["info", "warning", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "high", "critical")
ERRORS: Final = ("tool_error", "rpc_error", "timeout", "transport_error")


class Threshold(Frozen):
    """A comparison of the value with a number, once at least `at_least` (weighted) events are in the window."""

    comparison: Literal["above", "below", "equal"]
    value: float
    tolerance: float = 0.0
    at_least: Annotated[int, Field(ge=0, le=2**53)] = 0

    @field_validator("value", "tolerance")
    @classmethod
    def _comparable(cls, value: float) -> float:
        if not abs(value) <= 2**53:
            raise ValueError("a threshold is a number within +-2**53")
        exact_fixed(value)
        return value

    @model_validator(mode="after")
    def _tolerance_fits(self) -> Self:
        if self.tolerance < 0 or (self.tolerance and self.comparison != "equal"):
            raise ValueError("tolerance is a number >= 0 and belongs to equal() alone")
        return self


def above(value: float, *, at_least: int = 0) -> Threshold:
    """The value is greater than `value`."""
    return Threshold(comparison="above", value=value, at_least=at_least)


def below(value: float, *, at_least: int = 0) -> Threshold:
    """The value is less than `value`."""
    return Threshold(comparison="below", value=value, at_least=at_least)


def equal(value: float, *, tolerance: float, at_least: int = 0) -> Threshold:
    """The value differs from `value` by at most `tolerance`."""
    return Threshold(comparison="equal", value=value, tolerance=tolerance, at_least=at_least)


class Level(Frozen):
    """A severity and the threshold that calls for it."""

    severity: Severity
    when: Threshold


class Condition(Frozen):
    """What a constructor such as `error_rate` says: everything of a rule but its name, severity and texts."""

    select: Predicate
    by: tuple[str, ...]
    measure: Measure
    over: Duration
    every: Duration
    when: Threshold
    no_data_after: Duration | None = None
    unit: str = ""
    summary: str


def _condition(
    *, over: Any, every: Any, by: tuple[str, ...], when: Threshold, select: Predicate, measure: Measure, **more: Any
) -> Condition:
    over = to_duration(over)
    return Condition(
        select=select, by=by, measure=measure, over=over, every=over // 12 if every is None else every, when=when, **more
    )


def _of_service(select: Predicate, service: str, more: Predicate | None = None) -> Predicate:
    wanted = [each for each in (select, more) if each is not None and not isinstance(each, Everything)]
    if service != "*":
        wanted.append(event.service == service)
    return AllOf(of=tuple(wanted)) if len(wanted) > 1 else wanted[0] if wanted else Everything()


def _metric(metric: str | Operand) -> tuple[Predicate, FieldReference, str]:
    """Selection, field and name of a metric: a numeric event field, an attribute, or the name of a `metric` event."""
    if isinstance(metric, Operand):
        return Everything(), reference_to(metric), metric.reference.field
    if metric.startswith("attributes."):
        name = metric.removeprefix("attributes.")
        return Everything(), FieldReference(field=name, attribute=True), name
    if metric in type_of and metric not in ("value", "name"):
        return Everything(), reference_to(metric), metric
    return AllOf(of=(event.kind == "metric", event.name == metric)), FieldReference(field="value"), metric


_COMPARISONS: Final = {"above": "above", ">": "above", "below": "below", "<": "below", "equal": "equal", "==": "equal"}


def metric_threshold(
    metric: str | Operand,
    comparison: str,
    threshold: float,
    duration: str | int,
    *,
    at_least: int = 0,
    tolerance: float | None = None,
    every: str | int | None = None,
    by: tuple[str, ...] = ("tenant", "service"),
    service: str = "*",
    select: Predicate | None = None,
) -> Condition:
    """The mean of `metric` over `duration` is above, below or equal to `threshold`.

    A field that several kinds of event carry, such as `dur_us`, wants `select=` to say which of them are meant.
    """
    if comparison not in _COMPARISONS:
        raise ValueError(f"comparison is one of {', '.join(_COMPARISONS)}, not {comparison!r}")
    if _COMPARISONS[comparison] == "equal" and tolerance is None:
        raise ValueError("comparison 'equal' needs tolerance=, the largest difference that still counts as equal")
    chosen, field, name = _metric(metric)
    when = Threshold(comparison=_COMPARISONS[comparison], value=threshold, tolerance=tolerance or 0.0, at_least=at_least)  # type: ignore[arg-type]
    words = {"above": "exceeds", "below": "is below", "equal": "equals"}[when.comparison]
    return _condition(
        select=_of_service(chosen, service, select), by=by, measure=Mean(field=field), over=duration, every=every, when=when,
        summary=_plain(name) + " of '{service}' " + words + " {threshold:g}",
    )  # fmt: skip


def error_rate(
    service: str,
    threshold: float,
    duration: str | int,
    *,
    at_least: int = 20,
    errors: tuple[str, ...] = ERRORS,
    every: str | int | None = None,
    by: tuple[str, ...] = ("tenant", "service"),
    select: Predicate | None = None,
) -> Condition:
    """More than `threshold` (0 to 1) of the operations of `service` ("*": of each) end in one of `errors`."""
    if not 0 <= threshold < 1:
        raise ValueError(f"an error rate lies between 0 and 1, so the threshold is 0.05 for 5 %, not {threshold!r}")
    return _condition(
        select=_of_service(event.kind == "operation", service, select), by=by, measure=Ratio(of=event.outcome.in_(*errors)),
        over=duration, every=every, when=above(threshold, at_least=at_least),
        summary="Error rate for '{service}' exceeds {threshold:percent}",
    )  # fmt: skip


def security_violation(
    event_type: str,
    count_threshold: int,
    time_window: str | int,
    *,
    every: str | int | None = None,
    by: tuple[str, ...] = ("tenant", "service"),
    service: str = "*",
    select: Predicate | None = None,
) -> Condition:
    """More than `count_threshold` failed security events of `event_type` within `time_window`.

    `event_type` is an action (authn, authz, violation), a reason (missing_token, origin, ...) or "*" for any.
    """
    chosen = (event.kind == "security") & (event.result == "fail")
    if event_type != "*":
        chosen &= (event.action == event_type) | (event.reason == event_type)
    kind = "" if event_type == "*" else f" of type '{_plain(event_type)}'"
    return _condition(
        select=_of_service(chosen, service, select), by=by, measure=Count(), over=time_window, every=every,
        when=above(count_threshold), summary="More than {threshold:g} security violations" + kind + " on '{service}'",
    )  # fmt: skip


def performance_regression(
    metric: str | Operand,
    regression_threshold: float,
    baseline_period: str | int,
    *,
    current: str | int = "5m",
    at_least: int = 20,
    every: str | int | None = None,
    by: tuple[str, ...] = ("tenant", "service"),
    service: str = "*",
    select: Predicate | None = None,
) -> Condition:
    """The mean of `metric` over `current` lies more than `regression_threshold` (0.5: 50 %) above that of the baseline period.

    `select=` is as for metric_threshold.
    """
    chosen, field, name = _metric(metric)
    return _condition(
        select=_of_service(chosen, service, select), by=by, over=current, every=every,
        measure=Regression(field=field, baseline=to_duration(baseline_period)),
        when=above(regression_threshold, at_least=at_least),
        summary=_plain(name) + " of '{service}' is {value:.0%} above its baseline",
    )  # fmt: skip


def absence(
    by: tuple[str, ...] = ("tenant", "service"),
    for_: str | int = "2m",
    *,
    select: Predicate | None = None,
    every: str | int | None = None,
    no_data_after: str | int = "1d",
) -> Condition:
    """A group that was seen before sends nothing for `for_`; given up (resolved as `no_data`) after `no_data_after`."""
    return _condition(
        select=Everything() if select is None else select, by=by, measure=Count(), over=for_, every=every, when=below(1),
        no_data_after=no_data_after, summary="No events from '{service}' for " + duration_text(to_duration(for_)),
    )  # fmt: skip


def _plain(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
