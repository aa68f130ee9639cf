"""What `mcp.rules` says, and what a deploy makes of it, without a broker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from schemas.rule import Rule, Ruleset, above, count
from streams.ruleset_log import KEEP, DeployError, RulesetLog, plan_deploy


@dataclass(frozen=True)
class Record:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def rule(name: str, over: str = "1m") -> Rule:
    return Rule(name=name, measure=count(), over=over, warning=above(1), summary="x")


def ruleset(*rules: Rule) -> Ruleset:
    return Ruleset(rules=rules)


class Topic:
    """Writes to a log as the protocol does."""

    def __init__(self) -> None:
        self.log = RulesetLog()
        self.now = 0
        self._offset = 0

    def put(self, key: str, value: Any) -> None:
        raw = None if value is None else json.dumps(value).encode()
        self.log.fold(Record(self._offset, self.now, key.encode(), raw))
        self._offset += 1

    def documents(self, ruleset: Ruleset) -> None:
        for key, value in self.log.lacks(ruleset, self.now):
            self.put(key, json.loads(value))

    def intent(self, seq: int, ruleset: Ruleset, claim: str = "a", based_on: str | None = None) -> None:
        self.documents(ruleset)
        self.put(f"deploy/{seq:010}/{claim}", {"seq": seq, "id": ruleset.id, "based_on": based_on})

    def deploy(self, seq: int, ruleset: Ruleset, based_on: str | None = None) -> None:
        self.intent(seq, ruleset, based_on=based_on)
        self.put(f"deployed/{seq:010}", {"seq": seq, "id": ruleset.id})


A, B, B2 = rule("a"), rule("b"), rule("b", "2m")


def test_the_first_deploy_adds_everything() -> None:
    plan = plan_deploy(RulesetLog(), ruleset(A, B))
    assert (plan.change.added, plan.change.changed, plan.change.removed) == (("a", "b"), {}, ())
    assert (plan.seq, plan.based_on, plan.claims, plan.is_done) == (1, None, True, False)


def test_a_change_names_the_fields() -> None:
    topic = Topic()
    topic.deploy(1, ruleset(A, B))
    plan = plan_deploy(topic.log, ruleset(A, B2))
    assert plan.change.changed == {"b": ("over", "every", "no_data_after")}
    assert (plan.seq, plan.based_on) == (2, ruleset(A, B).id)


def test_no_change_is_done_and_can_be_done_again() -> None:
    topic = Topic()
    topic.deploy(3, ruleset(B, A))
    assert plan_deploy(topic.log, ruleset(A, B)).is_done
    plan = plan_deploy(topic.log, ruleset(A, B), again=True)
    assert (plan.is_done, plan.claims, plan.seq) == (False, False, 3)


def test_removals_need_prune() -> None:
    topic = Topic()
    topic.deploy(1, ruleset(A, B))
    with pytest.raises(DeployError, match=r"remove 1 of the active rules: b\. Give --prune"):
        plan_deploy(topic.log, ruleset(A))
    assert plan_deploy(topic.log, ruleset(A), prune=True).change.removed == ("b",)


def test_the_lowest_offset_wins_a_seq() -> None:
    topic = Topic()
    topic.intent(1, ruleset(A), "first")
    topic.intent(1, ruleset(B), "second")
    assert topic.log.current is not None
    assert topic.log.current.claim == "deploy/0000000001/first"


def test_a_half_done_deploy_of_the_same_rules_is_completed() -> None:
    topic = Topic()
    topic.deploy(1, ruleset(A))
    topic.intent(2, ruleset(A, B), based_on=ruleset(A).id)
    for based_on in (None, ruleset(A).id, ruleset(A, B).id):
        plan = plan_deploy(topic.log, ruleset(A, B), based_on=based_on)
        assert (plan.seq, plan.claims, plan.is_done) == (2, False, False)


def test_a_half_done_deploy_of_other_rules_is_superseded() -> None:
    topic = Topic()
    topic.deploy(1, ruleset(A))
    topic.intent(2, ruleset(A, B))
    plan = plan_deploy(topic.log, ruleset(A, B2))
    assert (plan.seq, plan.claims, plan.based_on) == (3, True, ruleset(A, B).id)
    with pytest.raises(DeployError, match="another deploy came between"):
        plan_deploy(topic.log, ruleset(A, B2), based_on=ruleset(A).id)


@pytest.mark.parametrize("before", [(), (A,)], ids=["none", "another"])
def test_another_current_ruleset_than_the_caller_thinks_is_refused(before: tuple[Rule, ...]) -> None:
    topic = Topic()
    if before:
        topic.deploy(1, ruleset(*before))
    with pytest.raises(DeployError, match="another deploy came between"):
        plan_deploy(topic.log, ruleset(A, B), based_on="0" * 16)


def test_a_missing_manifest_is_replaced_with_prune_only() -> None:
    topic = Topic()
    topic.deploy(1, ruleset(A))
    topic.put(f"ruleset/{ruleset(A).id}", None)
    with pytest.raises(DeployError, match="--prune"):
        plan_deploy(topic.log, ruleset(A, B))
    assert plan_deploy(topic.log, ruleset(A, B), prune=True).change.added == ("a", "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"{}"),
        (b"other", b"{}"),
        (b"rule/1", b"\xff"),
        (b"rule/1", b"7"),
        (b"deploy/x/y", b"{}"),
        (b"ruleset/1", b'{"rules":[1]}'),
    ],
)
def test_a_foreign_record_is_listed_and_harms_nothing(key: bytes | None, value: bytes) -> None:
    log = RulesetLog()
    log.fold(Record(7, 0, key, value))
    assert len(log.unreadable) == 1
    assert log.unreadable[0].startswith("offset 7, key ")
    assert log.current is None


def test_documents_are_written_once_and_again_when_they_grow_old() -> None:
    topic = Topic()
    topic.now = KEEP
    assert [key for key, _ in topic.log.lacks(ruleset(A), topic.now)] == [f"rule/{A.revision}", f"ruleset/{ruleset(A).id}"]
    topic.deploy(1, ruleset(A))
    assert [key for key, _ in topic.log.lacks(ruleset(A, B), topic.now)] == [f"rule/{B.revision}", f"ruleset/{ruleset(A, B).id}"]
    assert len(topic.log.lacks(ruleset(A), topic.now + KEEP // 2 + 1)) == 2


def test_documents_go_when_no_ruleset_used_them_for_the_retention() -> None:
    topic = Topic()
    topic.now = KEEP
    topic.deploy(1, ruleset(A, B))
    topic.now = 3 * KEEP
    topic.deploy(2, ruleset(A, B2))
    # The first ruleset was active until now: events that are replayed may need it.
    assert topic.log.unused(topic.now + KEEP - 1) == []
    gone = topic.log.unused(topic.now + KEEP)
    assert gone == [f"ruleset/{ruleset(A, B).id}", f"rule/{B.revision}"]
    # What the current ruleset uses stays, however old, and so do the deploys.
    assert topic.log.unused(topic.now + 100 * KEEP) == gone
    # Documents of a deploy that is still on its way to its intent stay.
    topic.documents(ruleset(rule("c")))
    assert topic.log.unused(topic.now + KEEP - 1) == []
