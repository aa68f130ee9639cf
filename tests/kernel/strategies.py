"""Hypothesis strategies for logs, and for the ways in which the kernel may come to see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.kernel.folds import MAX_GROUPS, Plan
from tests.kernel.generators import a_log, chance, some_sizes
from tests.kernel.log import Record

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Choices by hypothesis."""

    draw: Callable[[Any], Any]

    def one(self, of: Sequence[_T]) -> _T:
        return of[self.number(0, len(of) - 1)]

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))


@dataclass(frozen=True, slots=True)
class Case:
    """A log, and two ways of seeing it."""

    records: tuple[Record, ...]
    max_groups: int
    plan: Plan
    other: Plan


@st.composite
def plans(draw: Callable[[Any], Any], total: int) -> Plan:
    """Any chunks, saved and restored after any of them, with some records delivered again."""
    pick = Drawn(draw)
    sizes = some_sizes(pick, total)
    saved = frozenset(n for n in range(len(sizes)) if chance(pick, 15)) if chance(pick, 50) else frozenset()
    restored = frozenset(n for n in range(len(sizes)) if chance(pick, 25)) if chance(pick, 60) else frozenset()
    return Plan(sizes, saved, restored, repeated=pick.one((0, 0, 1, 4)))


@st.composite
def cases(draw: Callable[[Any], Any], longest: int = 40) -> Case:
    """A log of at most `longest` records, and two plans for it."""
    pick = Drawn(draw)
    records = a_log(pick, pick.number(1, longest))
    max_groups = pick.one((MAX_GROUPS, MAX_GROUPS, 1, 2, 3))
    return Case(tuple(records), max_groups, draw(plans(len(records))), draw(plans(len(records))))
