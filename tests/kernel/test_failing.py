"""Section 8 of docs/semantics.md: a rule that raises fails alone, at a record, and the same after any restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

from schemas.alert import RULE_FAILING, Reason
from schemas.rule import Rule, Ruleset
from streams.kernel.groups import Rows, RuleGroups
from streams.kernel.judge import Plan as RulePlan
from tests.kernel.drawing import drawn, edited, lines, log, micros, row, rule, tick
from tests.kernel.folds import MAX_GROUPS, Outcome, Plan, agree, by_kernel, by_oracle
from tests.kernel.generators import Seeded, a_log, some_sizes
from tests.kernel.log import Record, SwitchRecord
from tests.kernel.raising import Raising, plant, planted

GOOD, BAD = rule("good"), rule("bad")
Broken = Callable[[Raising], Callable[..., Outcome]]


@pytest.fixture(params=["by definition", "at once", "by record", "restored"])
def broken(request: pytest.FixtureRequest) -> Iterator[Broken]:
    """Folds records while a rule raises, in the four ways of the fixture `fold`."""
    ends: list[Callable[[], None]] = []

    def breaking(raising: Raising) -> Callable[..., Outcome]:
        ends.append(plant(raising))

        def folded(records: Sequence[Record]) -> Outcome:
            if request.param == "by definition":
                return by_oracle(records, raises=raising)
            each = (1,) * len(records)
            plans = {"at once": Plan(), "by record": Plan(each), "restored": Plan(each, restored=frozenset(range(len(records))))}
            return by_kernel(records, plans[request.param])[0]

        return folded

    yield breaking
    for end in ends:
        end()


def test_a_rule_that_raises_is_judged_no_more_and_every_other_one_is(broken: Broken) -> None:
    fold = broken(Raising(BAD.revision, offset=4))
    found = fold(log([GOOD, BAD], row(0), row(0), row(0), row(1), row(9), tick(20)))
    assert lines(found.transitions) == drawn("""
        0 bad files fired warning 3
        0 good files fired warning 3
        1 tocsin.rule_failing tocsin rule_failing critical -
        6 good files recovered warning 0
    """)
    failing = found.transitions[2]
    assert (failing.details["offset"], failing.labels["rule"], failing.revision) == (4, "bad", BAD.revision)
    assert "'bad' fails on partition 3 with ZeroDivisionError at offset 4" in failing.message


def test_what_the_record_did_to_the_rule_is_undone(broken: Broken) -> None:
    """The third row of the array would have fired it, at an offset from which it raises."""
    fold = broken(Raising(BAD.revision, offset=1))
    found = fold(log([GOOD, BAD], [row(0), row(0), row(0)]))
    assert lines(found.transitions) == drawn("0 tocsin.rule_failing tocsin rule_failing critical -\n0 good files fired warning 3")


def test_a_rule_fails_at_a_tick_too(broken: Broken) -> None:
    fold = broken(Raising(BAD.revision, offset=4))
    found = fold(log([BAD], row(0), row(0), row(0), tick(9)))
    assert lines(found.transitions)[1:] == drawn("9 tocsin.rule_failing tocsin rule_failing critical -")


CHANGED = edited(BAD, cooldown="1h")


@pytest.mark.parametrize(
    ("deployed", "expected"),
    [
        ([GOOD, CHANGED], "1 bad files rule_removed warning -\n1 tocsin.rule_failing tocsin recovered critical -"),
        ([GOOD], "1 bad files rule_removed warning -\n1 tocsin.rule_failing tocsin rule_removed critical -"),
        ([BAD], "1 good files rule_removed warning -"),
    ],
    ids=["changed", "gone", "the same"],
)
def test_a_deploy_of_another_revision_starts_it_anew(broken: Broken, deployed: list[Rule], expected: str) -> None:
    fold = broken(Raising(BAD.revision, offset=4))
    before = [row(0), row(0), row(0), row(1)]
    found = fold(log([GOOD, BAD], *before, deployed, row(1), row(1)))
    assert lines(found.transitions)[3:] == drawn(expected)
    assert found.transitions[2].dedup_key in {each.dedup_key for each in found.transitions[3:]} or deployed == [BAD]


def test_it_starts_without_state(broken: Broken) -> None:
    """Two rows before and two after are no three."""
    fold = broken(Raising(BAD.revision, offset=3))
    found = fold(log([BAD], row(0), row(0), row(0), [CHANGED], row(0), row(0), None, row(0)))
    assert lines(found.transitions)[-1:] == drawn("0 bad files fired warning 3")
    assert found.transitions[-1].details["offset"] == 8


def test_the_same_deployed_again_starts_it_anew(broken: Broken) -> None:
    fold = broken(Raising(BAD.revision, offset=3, period=3))
    ruleset = Ruleset(rules=(GOOD, BAD))
    again = SwitchRecord(4, micros(0), ruleset.id, 1, ruleset)
    records = log([GOOD, BAD], row(0), row(0), row(0), again, row(0), row(0), row(0))
    records[4] = again
    found = fold(records[:6])
    assert lines(found.transitions)[1:] == drawn("""
        0 tocsin.rule_failing tocsin rule_failing critical -
        0 tocsin.rule_failing tocsin recovered critical -
    """)
    assert [each.reason for each in fold(records).transitions if each.rule == RULE_FAILING][2:] == [Reason.RULE_FAILING]


def test_another_switch_with_the_same_number_changes_nothing(broken: Broken) -> None:
    fold = broken(Raising(BAD.revision, offset=1))
    records = log([BAD], row(0), row(0))
    records[2] = SwitchRecord(2, micros(0), "another", 1, None)
    assert len(fold(records).transitions) == 1


def test_want_of_memory_is_no_failure_of_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    def want(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(RuleGroups, "_fold", want)
    with pytest.raises(MemoryError):
        by_kernel(log([GOOD], row(0)))


def test_a_ruleset_of_which_a_rule_cannot_be_prepared_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = RulePlan.__init__

    def preparing(self: RulePlan, rule: Rule) -> None:
        prepared(self, rule)
        if rule.name == "bad":
            raise OverflowError

    monkeypatch.setattr(RulePlan, "__init__", preparing)
    records = log([GOOD], row(0), row(0), [BAD, GOOD], row(0))
    found = by_kernel(records)[0]
    assert lines(found.transitions) == drawn("0 good files fired warning 3")
    assert found.unreadable == [Ruleset(rules=(BAD, GOOD)).id]


def test_an_error_of_a_chunk_that_no_record_has_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the rule is folded record by record, and exact."""
    records = log([GOOD], *(row(n / 10, f"s{n % 3}") for n in range(30)))
    expected = by_oracle(records)
    fold = RuleGroups._fold

    def bounded(self: RuleGroups, rows: Rows) -> None:
        fold(self, rows)
        if len(self.touched(rows)[0]) > 1:
            raise OverflowError

    monkeypatch.setattr(RuleGroups, "_fold", bounded)
    agree(expected, by_kernel(records)[0])


@pytest.mark.parametrize("seed", range(60))
def test_dense_logs_with_a_rule_that_raises(seed: int) -> None:
    """Whatever the chunks and the restarts: the same failure, all other rules exact, and the same table."""
    pick = Seeded(Random(seed))
    records = a_log(pick, pick.number(100, 200), rules=4)
    rulesets = [record.ruleset for record in records if isinstance(record, SwitchRecord) and record.ruleset is not None]
    revisions = [each.revision for ruleset in rulesets for each in ruleset.rules] or [""]
    raising = Raising(pick.one(revisions), pick.number(0, 60), pick.number(1, 5))
    sizes = some_sizes(pick, len(records))
    restored = frozenset(n for n in range(len(sizes)) if pick.number(0, 5) == 0)
    max_groups = pick.one((MAX_GROUPS, 2))
    with planted(raising):
        expected = by_oracle(records, max_groups, raises=raising)
        found, table = by_kernel(records, Plan(sizes, restored=restored, repeated=pick.number(0, 3)), max_groups)
        agree(expected, found)
        again, same = by_kernel(records, Plan(), max_groups)
        agree(expected, again)
        assert table == same


def test_the_dense_logs_are_not_vacuous() -> None:
    failures = 0
    for seed in range(60):
        pick = Seeded(Random(seed))
        records = a_log(pick, pick.number(100, 200), rules=4)
        rulesets = [record.ruleset for record in records if isinstance(record, SwitchRecord) and record.ruleset is not None]
        revisions = [each.revision for ruleset in rulesets for each in ruleset.rules] or [""]
        raising = Raising(pick.one(revisions), pick.number(0, 60), pick.number(1, 5))
        failures += sum(each.reason is Reason.RULE_FAILING for each in by_oracle(records, raises=raising).transitions)
    assert failures >= 20
