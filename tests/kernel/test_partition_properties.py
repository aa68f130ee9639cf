"""The kernel against the oracle: any rules, any log, any chunks, saved and restored anywhere."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given

from schemas.alert import Transition
from schemas.condition import SEVERITIES
from tests.kernel.folds import MAX_GROUPS, Outcome, Plan, agree, by_kernel, by_oracle
from tests.kernel.generators import MEASURES, Seeded, a_log, some_sizes
from tests.kernel.log import Record, SwitchRecord
from tests.kernel.strategies import Case, cases


@given(cases())
def test_the_kernel_says_what_the_definition_says(case: Case) -> None:
    expected = by_oracle(case.records, case.max_groups)
    agree(expected, by_kernel(case.records, case.plan, case.max_groups)[0])


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
def test_dense_logs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kernel.groups._BLOCK", (1, 2, 5, 256)[seed % 4])
    records, plan, max_groups = dense(seed)
    expected = by_oracle(records, max_groups)
    found, table = by_kernel(records, plan, max_groups)
    agree(expected, found)
    at_once, same = by_kernel(records, Plan(), max_groups)
    agree(expected, at_once)
    assert table == same


def test_the_dense_logs_are_not_vacuous() -> None:
    """Every kind of transition by every measure, and everything that is counted, occurs in them."""
    seen: Counter[str] = Counter()
    for seed in SEEDS:
        records, _, max_groups = dense(seed)
        seen += seen_in(records, by_oracle(records, max_groups))
    reasons = ("condition_met", "severity_raised", "recovered", "no_data", "rule_removed")
    wanted = {f"{reason} {measure}" for reason in reasons for measure in MEASURES}
    wanted |= {"late", "overflow", "duplicates", "unreadable", "repeated", "refused expired", "refused overflow"}
    assert {name for name in wanted if seen[name] < 3} == set()


def seen_in(records: list[Record], outcome: Outcome) -> Counter[str]:
    """How often each reason came with each measure, and what was counted."""
    rulesets = [record.ruleset for record in records if isinstance(record, SwitchRecord) and record.ruleset is not None]
    measures = {rule.revision: rule.measure.measure for ruleset in rulesets for rule in ruleset.rules}
    seen = Counter(f"{said.reason} {measures[said.revision]}" for said in outcome.transitions if said.revision is not None)
    seen["late"] = sum(outcome.late.values())
    seen["overflow"] = sum(outcome.overflow.values())
    seen["duplicates"] = outcome.duplicates
    seen["unreadable"] = len(outcome.unreadable)
    seen["repeated"] = len(outcome.repeated)
    seen.update(f"refused {reason}" for reason in outcome.refused.values())
    return seen


def test_episodes_are_well_formed() -> None:
    """What holds of any log, whatever the oracle says: each id once, and each episode fires, rises and ends in this order."""
    for seed in range(20):
        records, plan, max_groups = dense(seed)
        transitions = by_kernel(records, plan, max_groups)[0].transitions
        assert len({each.id for each in transitions}) == len(transitions)
        places = [(each.details["offset"], each.details["index"], each.decided_at, each.rule) for each in transitions]
        assert places == sorted(places)
        episodes: dict[str, list[Transition]] = {}
        for each in transitions:
            episodes.setdefault(each.dedup_key, []).append(each)
        for episode in episodes.values():
            kinds = [each.details["kind"] for each in episode]
            severities = [SEVERITIES.index(each.severity) for each in episode if each.status == "firing"]
            assert kinds == ["fired", *["raised"] * (len(severities) - 1), *["resolved"] * (len(kinds) - len(severities))]
            assert severities == sorted(set(severities))
            assert [each.details["ordinal"] for each in episode] == list(range(len(episode)))
            assert len({(each.started_at, each.rule, *each.labels.items()) for each in episode}) == 1
