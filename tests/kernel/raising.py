"""Rules whose folding raises: what the oracle asks of them, and the same planted in the kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas.rule import Rule
from streams.kernel.groups import RuleGroups


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
    count, judge = RuleGroups._count, RuleGroups._judge_boundary

    def counting(self: RuleGroups, rows: Any, touched: Any, *arguments: Any) -> None:
        count(self, rows, touched, *arguments)
        if any(raising(self.plan.rule, offset) for offset in np.unique(rows.columns.offset[touched]).tolist()):
            raise ZeroDivisionError

    def judging(self: RuleGroups, group: Any, reach: Any, decider: Any) -> None:
        judge(self, group, reach, decider)
        if raising(self.plan.rule, decider(0).offset):
            raise ZeroDivisionError

    def put(counting: Any, judging: Any) -> None:
        RuleGroups._count, RuleGroups._judge_boundary = counting, judging  # type: ignore[method-assign]

    put(counting, judging)
    return lambda: put(count, judge)


@contextlib.contextmanager
def planted(raising: Callable[[Rule, int], bool]) -> Iterator[None]:
    """As `plant`, for a while."""
    end = plant(raising)
    try:
        yield
    finally:
        end()
