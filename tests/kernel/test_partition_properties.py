"""The kernel against the oracle: any rules, any log, any chunks, saved and restored anywhere."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given

from tests.kernel.folds import MAX_GROUPS, Outcome, Plan, by_kernel, by_oracle
from tests.kernel.generators import MEASURES, Seeded, a_log, some_sizes
from tests.kernel.log import Record, SwitchRecord
from tests.kernel.strategies import Case, cases


@given(cases())
def test_the_kernel_says_what_the_definition_says(case: Case) -> None:
    expected = by_oracle(case.records, case.max_groups)
    assert by_kernel(case.records, case.plan, case.max_groups)[0] == expected


@given(cases())
def test_the_table_depends_on_neither_chunks_nor_restarts(case: Case) -> None:
    _, table = by_kernel(case.records, case.plan, case.max_groups)
    _, other = by_kernel(case.records, case.other, case.max_groups)
    assert table == other


# --- denser logs, by seed -----------------------------------------------------------------------------------------

SEEDS = range(60)


def dense(seed: int) -> tuple[list[Record], Plan, int]:
    """A log of some hundred records, a plan for it and the bound on groups."""
    pick = Seeded(Random(seed))
    records = a_log(pick, pick.number(300, 500), rules=4)
    sizes = some_sizes(pick, len(records))
    restored = frozenset(n for n in range(len(sizes)) if pick.number(0, 9) == 0)
    return records, Plan(sizes, restored=restored, repeated=pick.number(0, 3)), pick.one((MAX_GROUPS, MAX_GROUPS, 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_dense_logs(seed: int) -> None:
    records, plan, max_groups = dense(seed)
    expected = by_oracle(records, max_groups)
    found, table = by_kernel(records, plan, max_groups)
    assert found == expected
    assert by_kernel(records, Plan(), max_groups) == (expected, table)


def test_the_dense_logs_are_not_vacuous() -> None:
    """Every kind of transition, reason and measure, and everything that is counted, occurs in them."""
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        records, _, max_groups = dense(seed)
        outcome = by_oracle(records, max_groups)
        seen += seen_in(records, outcome)
    wanted = {f"{kind} {measure}" for kind in ("condition_met", "severity_raised", "recovered") for measure in MEASURES}
    wanted |= {f"{kind} {measure}" for kind in ("no_data", "rule_removed") for measure in MEASURES}
    wanted |= {"late", "overflow", "duplicates", "unreadable"}
    assert {name for name in wanted if seen[name] < 3} == set()


def seen_in(records: list[Record], outcome: Outcome) -> Counter[str]:
    rules = {
        rule.revision: rule for record in records if isinstance(record, SwitchRecord) and record.ruleset for rule in record.ruleset.rules
    }
    seen: Counter[str] = Counter()
    for transition in outcome.transitions:
        assert transition.revision is not None
        seen[f"{transition.reason} {rules[transition.revision].measure.measure}"] += 1
    seen["late"] += sum(outcome.late.values())
    seen["overflow"] += sum(outcome.overflow.values())
    seen["duplicates"] += outcome.duplicates
    seen["unreadable"] += len(outcome.unreadable)
    return seen
