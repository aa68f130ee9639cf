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
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator

from schemas.condition import (
    SEVERITIES,
    Condition,
    Level,
    Severity,
    Threshold,
    above,
    absence,
    below,
    equal,
    error_rate,
    metric_threshold,
    performance_regression,
    security_violation,
)
from schemas.expression import Everything, FieldReference, Predicate, event, type_of
from schemas.measure import Frozen, Measure, Regression, attribute, count, max_of, mean, min_of, rate, ratio, sum_of
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

MAX_SLICES: Final = 1_440
MAX_RULES: Final = 10_000
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CHANNEL: Final = re.compile(r"[a-z0-9_-]{1,32}")
_CONTEXT: Final = frozenset({"value", "threshold", "unit", "rule", "severity", "over"})


_Word = Annotated[str, Field(max_length=512)]


class Rule(Frozen):
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


class Ruleset(Frozen):
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
