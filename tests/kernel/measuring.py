"""Section 3 and the thresholds of section 4, plainly: what is selected, how it is grouped, and what a window is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from schemas.condition import Severity, Threshold
from schemas.expression import AllOf, Among, AnyOf, Compare, Everything, Exists, FieldReference, Not, Predicate, Scalar
from schemas.measure import Count, Max, Mean, Min, Rate, Ratio, Regression, Sum
from schemas.number import SCALE, exact_fixed
from schemas.rule import Rule, label_name
from tests.kernel.log import SECOND, Row

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A row that was added to a group. `ts` stands for its slice, since windows begin and end with slices."""

    offset: int
    index: int
    ts: int
    weight: int
    value: Fraction
    of: bool


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
    return bool({"<": found < value, "<=": found <= value, ">": found > value, ">=": found >= value}[comparison])


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


def within(rows: list[Accepted], start: int, end: int) -> list[Accepted]:
    return [row for row in rows if start <= row.ts < end]


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
    if threshold is None:
        return None
    if not threshold.tolerance:
        return threshold.value
    value, tolerance = exact_fixed(threshold.value), exact_fixed(threshold.tolerance)
    return (value - tolerance) / SCALE, (value + tolerance) / SCALE


def level_of(rule: Rule, severity: Severity) -> Threshold | None:
    """The threshold of a severity; None where a switch took the level away."""
    levels: Mapping[Severity, Threshold] = {level.severity: level.when for level in rule.levels}
    return levels.get(severity)
