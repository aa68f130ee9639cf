"""Rules with one thing changed: what the examples of a rule must notice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.expression import Everything
from schemas.measure import Count, Rate, Regression, Sum
from schemas.rule import Rule
from schemas.time import duration_text

Changes = Iterator[tuple[str, dict[str, Any]]]


def mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """What is changed, and the changed rule: everything that alters what `rule` decides, by as little as it can be."""
    for changes in (_levels, _recover, _durations, _groups):
        for change, fields in changes(rule):
            yield change, Rule.model_validate(rule.document() | fields)


def _levels(rule: Rule) -> Changes:
    levels = rule.document()["levels"]
    for number, level in enumerate(levels):
        before, when, after = levels[:number], level["when"], levels[number + 1 :]
        for name, values in (("value", _moved(rule, when["value"])), ("at_least", _beside(when["at_least"]))):
            for value in values:
                changed = level | {"when": when | {name: value}}
                yield f"{level['severity']} {name} {value:g}", {"levels": [*before, changed, *after]}
        if len(levels) > 1:
            yield f"no {level['severity']}", {"levels": [*before, *after]}


def _recover(rule: Rule) -> Changes:
    if rule.recover is not None:
        yield "no recover", {"recover": None}
        for value in _moved(rule, rule.recover.value):
            yield f"recover {value:g}", {"recover": rule.document()["recover"] | {"value": value}}


def _durations(rule: Rule) -> Changes:
    for over in (rule.over - rule.every, rule.over + rule.every):
        yield f"over {duration_text(over)}", {"over": over}
    if isinstance(rule.measure, Regression):
        yield "half the baseline", {"measure": rule.document()["measure"] | {"baseline": rule.measure.baseline // 2}}
    for name in ("hold_for", "keep_firing_for"):
        if getattr(rule, name):
            yield f"half {name}", {name: getattr(rule, name) // 2}
    if not isinstance(rule.measure, Count | Rate | Sum) or any(level.when.comparison != "above" for level in rule.levels):
        yield "half no_data_after", {"no_data_after": rule.no_data_after // 2}


def _groups(rule: Rule) -> Changes:
    if rule.select != Everything():
        yield "select everything", {"select": Everything().model_dump()}
    for at, name in enumerate(rule.by):
        if name not in ("tenant", "service"):
            yield f"not by {name}", {"by": [*rule.by[:at], *rule.by[at + 1 :]], "summary": "{value}"}


def _moved(rule: Rule, value: float) -> tuple[float, float]:
    """A number a little below and a little above a threshold: a count by one, everything else by a tenth."""
    by = 1 if isinstance(rule.measure, Count) else abs(value) / 10
    return round(value - by, 9), round(value + by, 9)


def _beside(at_least: int) -> tuple[int, ...]:
    return (at_least - 1, at_least + 1) if at_least else ()
