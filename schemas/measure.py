"""Measures: what a rule computes over a window."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.expression import FieldReference, Operand, Predicate, event, numeric_fields, type_of
from schemas.time import Duration


class Frozen(BaseModel):
    """Part of a rule: what is said in it is known, and stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Count(Frozen):
    """Number of events, weighted."""

    measure: Literal["count"] = "count"


class Rate(Frozen):
    """Number of events per second of the window, weighted."""

    measure: Literal["rate"] = "rate"


class Ratio(Frozen):
    """Share of the selected events that also match `of`, weighted. Of nothing: no value."""

    measure: Literal["ratio"] = "ratio"
    of: Predicate


class Sum(Frozen):
    """Sum of a field, weighted. Of nothing: 0."""

    measure: Literal["sum"] = "sum"
    field: FieldReference


class Mean(Frozen):
    """Mean of a field, weighted. Of nothing: no value."""

    measure: Literal["mean"] = "mean"
    field: FieldReference


class Min(Frozen):
    """Smallest value of a field. Of nothing: no value."""

    measure: Literal["min"] = "min"
    field: FieldReference


class Max(Frozen):
    """Largest value of a field. Of nothing: no value."""

    measure: Literal["max"] = "max"
    field: FieldReference


class Regression(Frozen):
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
    return Sum(field=reference_to(field))


def mean(field: str | Operand) -> Mean:
    """Mean of a numeric field or attribute over the selected events that carry it."""
    return Mean(field=reference_to(field))


def min_of(field: str | Operand) -> Min:
    """Smallest value of a numeric field or attribute."""
    return Min(field=reference_to(field))


def max_of(field: str | Operand) -> Max:
    """Largest value of a numeric field or attribute."""
    return Max(field=reference_to(field))


def attribute(name: str) -> Operand:
    """The attribute `name`, as a metric."""
    return event.attributes[name]


def reference_to(field: str | Operand) -> FieldReference:
    """The numeric field or attribute that is meant. Raises ValueError for a field that holds no number."""
    reference = field.reference if isinstance(field, Operand) else FieldReference(field=field)
    if not reference.attribute and reference.field not in numeric_fields:
        raise ValueError(f"event.{reference.field} holds {type_of[reference.field]}; a measure needs a number")
    return reference
