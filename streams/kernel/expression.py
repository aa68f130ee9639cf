"""Selections as masks over the columns of a chunk."""

from __future__ import annotations

import operator
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from functools import reduce
from typing import Any, Final

import numpy as np

from schemas.expression import AllOf, Among, AnyOf, Compare, Everything, Exists, FieldReference, Not, Predicate, Scalar, type_of
from streams.kernel.columns import Bool, Columns, Text

_ORDER: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def mask(predicate: Predicate, columns: Columns) -> Bool:
    """Which of the n events match: bool[n]. A field that is absent, or of another type, equals nothing."""
    found = columns.masks.get(predicate)
    if found is None:
        found = columns.masks[predicate] = _mask(predicate, columns)
    return found


def _mask(predicate: Predicate, columns: Columns) -> Bool:
    match predicate:
        case Compare(left=left, comparison="!=", value=value):
            return ~_equals(left, value, columns)
        case Compare(left=left, comparison="==", value=value):
            return _equals(left, value, columns)
        case Compare(left=left, comparison=comparison, value=value):
            # Comparing with NaN, which stands for absence, is false, as it should be.
            return np.asarray(_ORDER[comparison](columns.number(left), value), dtype=np.bool_)
        case Among(left=left, values=values) if not left.attribute and type_of[left.field] == "text":
            return _is_among(columns.text(left), frozenset(value for value in values if isinstance(value, str)))
        case Among(left=left, values=values):
            return reduce(operator.or_, (_equals(left, value, columns) for value in values))
        case Exists(left=left):
            return np.array([value is not None for value in columns.values(left)], dtype=np.bool_)
        case AllOf(of=of):
            return reduce(operator.and_, (mask(part, columns) for part in of))
        case AnyOf(of=of):
            return reduce(operator.or_, (mask(part, columns) for part in of))
        case Not(of=of):
            return ~mask(of, columns)
        case Everything():
            return np.ones(len(columns), dtype=np.bool_)


def _equals(left: FieldReference, value: Scalar, columns: Columns) -> Bool:
    if isinstance(value, bool):
        return np.array([held is value for held in columns.values(left)], dtype=np.bool_)
    if isinstance(value, str):
        if left.attribute or type_of[left.field] != "text":
            return np.array([held == value for held in columns.values(left)], dtype=np.bool_)
        return _is_among(columns.text(left), {value})
    return np.asarray(columns.number(left) == value)


def _is_among(text: Text, values: AbstractSet[str]) -> Bool:
    found: Bool = np.array([*(word in values for word in text.words), False])[text.codes]  # the last place is that of MISSING
    return found
