"""Rules whose folding raises: what the oracle asks of them, and the same planted in the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from schemas.rule import Rule
from streams.kernel.groups import Rows, RuleGroups
from streams.kernel.transition import Decider


@dataclass(frozen=True, slots=True)
class Raising:
    """A revision of a rule raises at every `period`th offset from `offset` on, when it is touched or judged at a boundary."""

    revision: str
    offset: int
    period: int = 1

    def __call__(self, rule: Rule, offset: int) -> bool:
        return rule.revision == self.revision and offset >= self.offset and offset % self.period == 0


def plant(raising: Callable[[Rule, int], bool]) -> Callable[[], None]:
    """Make the kernel raise, after it has done all that it does, so that there is something to undo. Returns how to end that."""
    fold, close = RuleGroups._fold, RuleGroups._close

    def folding(self: RuleGroups, rows: Rows) -> None:
        """Row by row, since a boundary is judged only where there are groups by then."""
        rule, steps = self.plan.rule, []
        touched = set(self.touched(rows)[0].tolist())
        for row in range(rows.start, rows.end):
            before = rows.before if row == rows.start else int(rows.times[row - 1])
            is_boundary = before // rule.every != int(rows.times[row]) // rule.every
            if row in touched or (is_boundary and len(self)):
                steps.append(int(rows.columns.offset[row]))
            fold(self, replace(rows, start=row, end=row + 1, before=before))
        if any(raising(rule, offset) for offset in steps):
            raise ZeroDivisionError

    def closing(self: RuleGroups, before: int, decider: Decider) -> None:
        had = len(self)
        close(self, before, decider)
        if had and raising(self.plan.rule, decider.offset):
            raise ZeroDivisionError

    def put(folding: Any, closing: Any) -> None:
        RuleGroups._fold, RuleGroups._close = folding, closing  # type: ignore[method-assign]

    put(folding, closing)
    return lambda: put(fold, close)


@contextlib.contextmanager
def planted(raising: Callable[[Rule, int], bool]) -> Iterator[None]:
    """As `plant`, for a while."""
    end = plant(raising)
    try:
        yield
    finally:
        end()
