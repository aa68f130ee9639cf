"""Rules: all that an author must know. A rule module imports from here and from nowhere else.

    from schemas.rule import Rule, above, below, event, ratio

    tool_error_rate = Rule(
        name="tool-error-rate",
        select=(event.kind == "operation") & (event.method == "tools/call"),
        by=("tenant", "service", "tool"),
        measure=ratio(event.outcome == "tool_error"),
        over="10m", every="30s",
        warning=above(0.20, at_least=20), critical=above(0.50, at_least=20), recover=below(0.15),
        keep_firing_for="2m", cooldown="15m", channels=("log", "webhook"),
        summary="{tool} on {service} fails in {value:.0%} of calls",
    )

The four conditions of the specification, and absence, come as constructors that fill select, measure, by, over and every:

    Rule(name="slow", condition=metric_threshold("dur_us", "above", 5_000_000, "5m"), severity="high", summary="...")
"""

from __future__ import annotations

import hashlib
import json
import re
import string
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from schemas.expression import AllOf, Everything, FieldReference, Operand, Predicate, event, numeric_fields, type_of
from schemas.number import exact_fixed
from schemas.time import MICROS, Duration, duration_text, to_duration

__all__ = [
    "Rule",
    "Ruleset",
    "above",
    "absence",
    "attribute",
    "below",
    "count",
    "equal",
    "error_rate",
    "event",
    "max_of",
    "mean",
    "metric_threshold",
    "min_of",
    "performance_regression",
    "rate",
    "ratio",
    "security_violation",
    "sum_of",
]

Severity = Literal["info", "warning", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "high", "critical")
DAY: Final = 86_400 * MICROS
MAX_SLICES: Final = 1_440
MAX_RULES: Final = 10_000
ERRORS: Final = ("tool_error", "rpc_error", "timeout", "transport_error")
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CHANNEL: Final = re.compile(r"[a-z0-9_-]{1,32}")
_CONTEXT: Final = frozenset({"value", "threshold", "unit", "rule", "severity", "over"})


_Word = Annotated[str, Field(max_length=512)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# --- measures: what is computed over a window ---------------------------------------------------------------------


class Count(_Frozen):
    """Number of events, weighted."""

    measure: Literal["count"] = "count"


class Rate(_Frozen):
    """Number of events per second of the window, weighted."""

    measure: Literal["rate"] = "rate"


class Ratio(_Frozen):
    """Share of the selected events that also match `of`, weighted. Of nothing: no value."""

    measure: Literal["ratio"] = "ratio"
    of: Predicate


class Sum(_Frozen):
    """Sum of a field, weighted. Of nothing: 0."""

    measure: Literal["sum"] = "sum"
    field: FieldReference


class Mean(_Frozen):
    """Mean of a field, weighted. Of nothing: no value."""

    measure: Literal["mean"] = "mean"
    field: FieldReference


class Min(_Frozen):
    """Smallest value of a field. Of nothing: no value."""

    measure: Literal["min"] = "min"
    field: FieldReference


class Max(_Frozen):
    """Largest value of a field. Of nothing: no value."""

    measure: Literal["max"] = "max"
    field: FieldReference


class Regression(_Frozen):
    """Relative rise of the mean of a field over its mean in the baseline period, which ends where the window begins
    and holds still while an episode is open. A zero, negative or missing baseline: no value."""

    measure: Literal["regression"] = "regression"
    field: FieldReference
    baseline: Duration


Measure = Annotated[Count | Rate | Ratio | Sum | Mean | Min | Max | Regression, Field(discriminator="measure")]


def count() -> Count:
    """Number of selected events."""
    return Count()


def rate() -> Rate:
    """Number of selected events per second."""
    return Rate()


def ratio(of: Predicate) -> Ratio:
    """Share of the selected events that also match `of`."""
    return Ratio(of=of)


def sum_of(field: str | Operand) -> Sum:
    """Sum of a numeric field or attribute over the selected events that carry it."""
    return Sum(field=_reference(field))


def mean(field: str | Operand) -> Mean:
    """Mean of a numeric field or attribute over the selected events that carry it."""
    return Mean(field=_reference(field))


def min_of(field: str | Operand) -> Min:
    """Smallest value of a numeric field or attribute."""
    return Min(field=_reference(field))


def max_of(field: str | Operand) -> Max:
    """Largest value of a numeric field or attribute."""
    return Max(field=_reference(field))


def attribute(name: str) -> Operand:
    """The attribute `name`, as a metric."""
    return event.attributes[name]


def _reference(field: str | Operand) -> FieldReference:
    reference = field.reference if isinstance(field, Operand) else FieldReference(field=field)
    if not reference.attribute and reference.field not in numeric_fields:
        raise ValueError(f"event.{reference.field} holds {type_of[reference.field]}; a measure needs a number")
    return reference


# --- conditions: when a value is worth an alert -------------------------------------------------------------------


class Threshold(_Frozen):
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


class Level(_Frozen):
    """A severity and the threshold that calls for it."""

    severity: Severity
    when: Threshold


class Condition(_Frozen):
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
        return Everything(), _reference(metric), metric.reference.field
    if metric.startswith("attributes."):
        name = metric.removeprefix("attributes.")
        return Everything(), FieldReference(field=name, attribute=True), name
    if metric in type_of and metric not in ("value", "name"):
        return Everything(), _reference(metric), metric
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


# --- the rule -----------------------------------------------------------------------------------------------------


class Rule(_Frozen):
    """One rule: what it looks at, when it fires, and what is said then.

    `info=`, `warning=`, `high=` and `critical=` give the levels; `condition=` with `severity=` is the short form.
    Durations are integer microseconds once read.
    """

    name: str
    select: Predicate = Everything()
    by: tuple[str, ...] = ("tenant", "service")
    measure: Measure
    over: Duration
    every: Duration
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=4)]
    recover: Threshold | None = None
    hold_for: Duration = 0
    keep_firing_for: Duration = 0
    no_data_after: Duration
    cooldown: Duration = 15 * 60 * MICROS
    channels: Annotated[tuple[str, ...], Field(max_length=16)] = ("log",)
    summary: Annotated[str, Field(min_length=1, max_length=512)]
    runbook: Annotated[str, Field(max_length=512)] = ""
    unit: Annotated[str, Field(max_length=32)] = ""
    annotations: Annotated[dict[_Word, _Word], Field(max_length=16)] = Field(default_factory=dict)

    if TYPE_CHECKING:  # what authors may write, which `_expand` turns into the fields above

        def __init__(
            self,
            *,
            name: str,
            condition: Condition = ...,
            severity: Severity = ...,
            select: Predicate = ...,
            by: tuple[str, ...] = ...,
            measure: Measure = ...,
            over: str | int = ...,
            every: str | int = ...,
            levels: tuple[Level, ...] = ...,
            info: Threshold = ...,
            warning: Threshold = ...,
            high: Threshold = ...,
            critical: Threshold = ...,
            recover: Threshold | None = ...,
            hold_for: str | int = ...,
            keep_firing_for: str | int = ...,
            no_data_after: str | int = ...,
            cooldown: str | int = ...,
            channels: tuple[str, ...] = ...,
            summary: str = ...,
            runbook: str = ...,
            unit: str = ...,
            annotations: dict[str, str] = ...,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        """Turn the forms that are convenient to write into the one form that is stored."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        condition = data.pop("condition", None)
        severity = data.pop("severity", None)
        levels: list[dict[str, Any]] = [
            {"severity": name, "when": data.pop(name)} for name in SEVERITIES if data.get(name) is not None
        ]
        for name in SEVERITIES:
            data.pop(name, None)
        if condition is not None:
            if not isinstance(condition, Condition):
                raise ValueError(
                    "condition= takes error_rate(), metric_threshold(), security_violation(), performance_regression(), absence()"
                )
            if levels or "levels" in data:
                raise ValueError("give either condition= with severity=, or levels such as warning=above(...), not both")
            taken = sorted(name for name in ("select", "by", "measure", "over", "every") if name in data)
            if taken:
                raise ValueError(f"{', '.join(taken)}: already said by condition=; give it to the constructor instead")
            levels = [{"severity": severity or "warning", "when": condition.when}]
            for said in ("select", "by", "measure", "over", "every"):
                data[said] = getattr(condition, said)
            for said in ("no_data_after", "unit", "summary"):
                if getattr(condition, said):
                    data.setdefault(said, getattr(condition, said))
        elif severity is not None:
            raise ValueError("severity= goes with condition=; otherwise name the level, as in warning=above(0.2)")
        if levels and condition is None and "levels" in data:
            raise ValueError("give either levels= or single levels such as warning=above(...), not both")
        if levels:
            data["levels"] = levels
        if "levels" not in data:
            raise ValueError("say when the rule fires: warning=above(...), critical=below(...), or condition=...")
        if "over" in data:
            over = to_duration(data["over"])
            if data.get("every") is None:
                data["every"] = over // 12
            if data.get("no_data_after") is None:
                data["no_data_after"] = over + to_duration(data.get("keep_firing_for", 0))
        return data

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if len(name) > 64 or not _NAME.fullmatch(name):
            raise ValueError(
                f"a name is made of lower-case words joined by '-', at most 64 characters, like 'tool-error-rate', not {name!r}"
            )
        return name

    @field_validator("by")
    @classmethod
    def _grouped(cls, by: tuple[str, ...]) -> tuple[str, ...]:
        for name in by:
            if name.startswith("attributes."):
                FieldReference(field=label_name(name), attribute=True)
            elif type_of.get(name) != "text":
                raise ValueError(f"events cannot be grouped by {name!r}; name text fields, or attributes as 'attributes.NAME'")
        if not {"tenant", "service"} <= set(by):
            raise ValueError("by= must hold 'tenant' and 'service': a group lives on the partition of its service")
        if len(set(by)) != len(by) or len(by) > 8:
            raise ValueError("by= names at most 8 fields, each once")
        if len({label_name(name) for name in by}) != len(by):
            raise ValueError("by= names a field and an attribute that make the same label; name one of them")
        return by

    @field_validator("channels")
    @classmethod
    def _reachable(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        for channel in channels:
            if not _CHANNEL.fullmatch(channel):
                raise ValueError(f"channel {channel!r}: names hold lower-case letters, digits, '-' and '_'")
        return channels

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not 0 < self.every <= self.over or self.over % self.every or self.every % 1000:
            raise ValueError(
                f"every={duration_text(self.every)} must be whole milliseconds and divide over={duration_text(self.over)} "
                "evenly; it is a twelfth of over= unless it is given"
            )
        baseline = self.measure.baseline if isinstance(self.measure, Regression) else 0
        if baseline % self.every or (baseline == 0 and isinstance(self.measure, Regression)):
            raise ValueError(f"baseline={duration_text(baseline)} must be a multiple of every={duration_text(self.every)}")
        if (self.over + baseline) // self.every > MAX_SLICES:
            raise ValueError(
                f"window and baseline hold at most {MAX_SLICES} slices of every={duration_text(self.every)}; take a larger every="
            )
        severities: list[str] = [level.severity for level in self.levels]
        if len(set(severities)) != len(severities):
            raise ValueError("each severity has one level")
        if severities != [name for name in SEVERITIES if name in severities]:
            raise ValueError("levels are listed from info to critical")
        if self.no_data_after < self.every:
            raise ValueError("no_data_after= is at least every=")
        if self.recover is not None and self.recover.at_least:
            raise ValueError("recover= takes no at_least; too few samples hold the state anyway")
        self._check_summary()
        return self

    def _check_summary(self) -> None:
        known = {label_name(name) for name in self.by} | _CONTEXT
        try:
            parts = list(string.Formatter().parse(self.summary))
        except ValueError as error:
            raise ValueError(f"summary: {error}; write a literal brace twice") from None
        for _, name, form, conversion in parts:
            if name is None:
                continue
            if name not in known:
                raise ValueError(f"summary: unknown name {{{name}}}; it may use {', '.join(sorted(known))}")
            if conversion:
                raise ValueError(f"summary: {{{name}!{conversion}}} takes no conversion")
            if form and (name not in ("value", "threshold") or not re.fullmatch(r",?(\.\d)?(g|f|%|d|percent)?", form)):
                raise ValueError(f"summary: {{{name}:{form}}} is no number format; use forms such as .0%, .1f, g")

    @property
    def revision(self) -> str:
        """Content hash of the rule: 16 hexadecimal digits."""
        return content_hash(self.document())

    def document(self) -> dict[str, Any]:
        """The rule as the JSON that is stored and shipped."""
        return self.model_dump(mode="json")


def label_name(by: str) -> str:
    """The label that a group-by name becomes: attributes lose their prefix."""
    return by.removeprefix("attributes.")


def content_hash(document: Any) -> str:
    """Hash of a JSON document that does not depend on the order of its keys: 16 hexadecimal digits."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint_of_aggregate(rule: Rule) -> str:
    """Identity of what a rule aggregates: an edit of thresholds, texts or durations other than `every` keeps it."""
    document = rule.document()
    return content_hash([rule.name, *(document[name] for name in ("select", "by", "every", "measure"))])


class Ruleset(_Frozen):
    """The rules that are active together."""

    rules: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ValueError(f"rule names are used once: {', '.join(twice)}")
        return self

    @property
    def id(self) -> str:
        """Content hash of the set: of the names and revisions it holds, in any order."""
        return content_hash({rule.name: rule.revision for rule in self.rules})
