"""The guarantees of PartitionState that `make prove` plants bugs against, each in a few lines."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from schemas.dead_letter import DeadReason
from schemas.event import Event
from schemas.rule import Rule, Ruleset, above, absence, below, count, error_rate, ratio
from schemas.rule import event as field
from streams.kernel.columns import Chunk, Columns, Origin, Redriven, Step, Structs, SwitchStep, TickStep
from streams.kernel.partition import MissingRulesetError, PartitionState
from streams.kernel.redriven import KEEP
from streams.kernel.state_version import StateVersionError

S = 1_000_000
T0 = 1_700_000_000 * S
BLANK = dict.fromkeys(Event.model_fields)


class Row:
    """An event as the decoder would give it, with its place in the log."""

    def __init__(self, offset: int, at: int, **fields: Any) -> None:
        self.offset = offset
        self.__dict__.update(
            BLANK | {"ts": T0 + at, "service": "files", "tenant": "default", "weight": 1, "kind": "operation"} | fields
        )


def columns(*rows: Any, origins: dict[int, Origin] | None = None, redriven: dict[int, Redriven] | None = None) -> Columns:
    def of(values: list[int]) -> Any:
        return np.array(values, dtype=np.int64)

    offsets = of([row.offset for row in rows])
    times = of([row.ts for row in rows])
    local = np.ones(len(rows), dtype=np.bool_)
    return Columns(
        Structs(rows), offsets, offsets * 0, times, times, of([row.weight for row in rows]), local, origins or {}, redriven or {}
    )


def chunk(*steps: Step) -> Chunk:
    last = steps[-1]
    return Chunk(steps, int(last.offset[-1]) if isinstance(last, Columns) else last.offset)


def started(*rules: Rule) -> tuple[PartitionState, dict[str, Ruleset]]:
    ruleset = Ruleset(rules=rules)
    state = PartitionState("mcp.events", 0)
    state.apply(chunk(SwitchStep(0, T0, ruleset.id, 1)), {ruleset.id: ruleset})
    return state, {ruleset.id: ruleset}


FLOOD = Rule(name="flood", measure=count(), over="60s", every="10s", warning=above(2), summary="{value} events")
FAILING = Rule(
    name="failing", condition=error_rate("*", 0.5, "60s", at_least=2, every="10s"), recover=below(0.3), severity="high"
)
SILENT = Rule(name="silent", condition=absence(for_="30s", every="10s"), severity="critical")


def told(changes: Any) -> list[tuple[str, str, int]]:
    return [(item.rule, item.status, (item.decided_at - T0) // S) for item in changes.transitions]


def test_judging_does_not_depend_on_chunks() -> None:
    outcomes = ["ok", "tool_error", "tool_error", "ok", "ok", "ok", "ok", "ok"]
    rows = [Row(1 + n, n * S, outcome=outcome) for n, outcome in enumerate(outcomes)]
    whole, rulesets = started(FAILING)
    together = told(whole.apply(chunk(columns(*rows)), rulesets))
    single, _ = started(FAILING)
    apart = [item for row in rows for item in told(single.apply(chunk(columns(row)), rulesets))]
    assert together == apart == [("failing", "firing", 2), ("failing", "resolved", 6)]


def test_replayed_records_are_skipped() -> None:
    state, rulesets = started(FLOOD)
    rows = [Row(1, 0), Row(2, S)]
    state.apply(chunk(columns(*rows)), rulesets)
    assert told(state.apply(chunk(columns(*rows)), rulesets)) == []
    assert told(state.apply(chunk(columns(*rows, Row(3, 2 * S))), rulesets)) == [("flood", "firing", 2)]


def test_a_repeated_forward_counts_once() -> None:
    state, rulesets = started(FLOOD)
    origins = {0: Origin(5, 7, 0), 1: Origin(5, 7, 1), 2: Origin(5, 7, 0), 3: Origin(5, 7, 1)}
    changes = state.apply(chunk(columns(*(Row(1 + n, 0) for n in range(4)), origins=origins)), rulesets)
    assert (changes.counted, changes.duplicates, told(changes)) == (2, 2, [])
    again = state.apply(chunk(columns(Row(5, 0), origins={0: Origin(4, 7, 0)})), rulesets)
    assert told(again) == [("flood", "firing", 0)], "markers are kept per origin partition"


def test_a_redriven_record_counts_once() -> None:
    state, rulesets = started(FLOOD)
    twice = columns(Row(5, 0), Row(6, 0), redriven={0: Redriven(3, T0), 1: Redriven(3, T0)})
    changes = state.apply(chunk(twice), rulesets)
    assert (changes.counted, changes.duplicates, set(changes.repeated), dict(changes.refused)) == (1, 1, {6}, {})
    state = PartitionState.restore("mcp.events", 0, table_of(state), rulesets)
    edited = columns(Row(7, S, service="mail"), redriven={0: Redriven(3, T0)})
    assert state.apply(chunk(edited), rulesets).counted == 0, "its origin is remembered over a restart, whatever it holds now"
    older = columns(Row(8, S), redriven={0: Redriven(2, T0)})
    assert state.apply(chunk(older), rulesets).counted == 1, "an older origin is none that was redriven"


def test_an_origin_is_refused_before_it_is_forgotten() -> None:
    state, rulesets = started(FLOOD)
    state.apply(chunk(columns(Row(5, 0), redriven={0: Redriven(3, T0)})), rulesets)
    assert [key for key, _ in table_of(state) if key[:1] == b"r"] != []
    last = columns(Row(6, KEEP - 1), Row(7, KEEP), redriven={0: Redriven(3, T0), 1: Redriven(3, T0)})
    changes = state.apply(chunk(last), rulesets)
    assert (set(changes.repeated), dict(changes.refused)) == ({6}, {7: DeadReason.EXPIRED})
    assert [key for key, value in state.take_dirty() if key[:1] == b"r" and value is None] != []


def test_more_redriven_records_than_are_remembered_are_refused() -> None:
    state = PartitionState("mcp.events", 0, max_redriven=2)
    origins = {n: Redriven(n, T0) for n in range(3)}
    changes = state.apply(chunk(columns(*(Row(5 + n, 0) for n in range(3)), redriven=origins)), {})
    assert (changes.counted, changes.refused) == (2, {7: DeadReason.OVERFLOW})


def table_of(state: PartitionState) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in state.take_dirty() if value is not None]


def test_a_tick_moves_time_by_its_append_time() -> None:
    state, rulesets = started(SILENT)
    state.apply(chunk(columns(Row(1, 0))), rulesets)
    assert told(state.apply(chunk(TickStep(2, T0 + 42 * S)), rulesets)) == []
    assert told(state.apply(chunk(TickStep(3, T0 + 43 * S)), rulesets)) == [("silent", "firing", 40)]
    assert state.stream_time == T0 + 40 * S


def test_an_event_leaves_the_window_on_time() -> None:
    state, rulesets = started(FLOOD)
    state.apply(chunk(columns(Row(1, 9 * S), Row(2, 9 * S))), rulesets)
    assert told(state.apply(chunk(columns(Row(3, 60 * S))), rulesets)) == [], "the slice of 0 s left when the one of 60 s came"
    state.apply(chunk(columns(Row(4, 61 * S))), rulesets)
    assert told(state.apply(chunk(columns(Row(5, 62 * S))), rulesets)) == [("flood", "firing", 62)]


@pytest.mark.parametrize("restored", [False, True])
def test_an_episode_survives_a_restart_under_its_ids(restored: bool) -> None:
    state, rulesets = started(FAILING)
    table: dict[bytes, bytes] = {}

    def checkpoint() -> None:
        for key, value in state.take_dirty():
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value

    fired = state.apply(chunk(columns(Row(1, 0, outcome="timeout"), Row(2, S, outcome="timeout"))), rulesets).transitions
    checkpoint()
    if restored:
        state = PartitionState.restore("mcp.events", 0, table.items(), rulesets)
    resolved = state.apply(chunk(columns(*(Row(3 + n, 2 * S, outcome="ok") for n in range(9)))), rulesets).transitions
    assert [item.details["ordinal"] for item in (*fired, *resolved)] == [0, 1]
    assert fired[0].dedup_key == resolved[0].dedup_key


def test_a_state_is_not_restored_without_its_ruleset() -> None:
    state, rulesets = started(FLOOD)
    table = [(key, value) for key, value in state.take_dirty() if value is not None]
    with pytest.raises(MissingRulesetError):
        PartitionState.restore("mcp.events", 0, table, {})
    assert PartitionState.restore("mcp.events", 0, table, rulesets).ruleset_id == next(iter(rulesets))


def test_a_state_of_another_version_is_refused() -> None:
    state, rulesets = started(FLOOD)
    table = {key: value for key, value in state.take_dirty() if value is not None}
    table[b"m"] = msgspec.msgpack.encode([2, *msgspec.msgpack.decode(table[b"m"])[1:], "a field more"])
    with pytest.raises(StateVersionError, match="the engine's state has version 2, and this release of tocsin reads version 1"):
        PartitionState.ruleset_of(table.items())
    with pytest.raises(StateVersionError):
        PartitionState.restore("mcp.events", 0, table.items(), rulesets)


def test_an_edit_of_a_threshold_keeps_the_window_and_the_episode() -> None:
    state, rulesets = started(FLOOD)
    assert told(state.apply(chunk(columns(*(Row(1 + n, 0) for n in range(3)))), rulesets)) == [("flood", "firing", 0)]
    edited = Ruleset(rules=(FLOOD.model_copy(update={"levels": Rule(**(FLOOD.document() | {"levels": [
        {"severity": "warning", "when": {"comparison": "above", "value": 2}},
        {"severity": "critical", "when": {"comparison": "above", "value": 3}},
    ]})).levels}),))  # fmt: skip
    rulesets |= {edited.id: edited}
    assert told(state.apply(chunk(SwitchStep(4, T0, edited.id, 2)), rulesets)) == []
    raised = state.apply(chunk(columns(Row(5, S))), rulesets).transitions
    assert [(item.severity, item.value, item.reason) for item in raised] == [("critical", 4.0, "severity_raised")]


def test_a_removed_rule_resolves_its_episodes_and_leaves_nothing() -> None:
    state, rulesets = started(FLOOD)
    state.apply(chunk(columns(*(Row(1 + n, 0) for n in range(3)))), rulesets)
    empty = Ruleset(rules=())
    changes = state.apply(chunk(SwitchStep(4, T0, empty.id, 2)), rulesets | {empty.id: empty})
    assert [(item.status, item.reason, item.window) for item in changes.transitions] == [("resolved", "rule_removed", None)]
    table: dict[bytes, bytes | None] = dict(state.take_dirty())
    assert [key for key, value in table.items() if value is not None] == [b"m"]


def test_an_older_switch_and_an_unreadable_one_change_nothing() -> None:
    state, rulesets = started(FLOOD)
    assert state.apply(chunk(SwitchStep(1, T0, "other", 1)), rulesets).unreadable == ()
    assert state.apply(chunk(SwitchStep(2, T0, "other", 2)), rulesets).unreadable == ("other",)
    assert state.ruleset_id == next(iter(rulesets))


def test_groups_are_bounded_and_what_overflows_is_counted() -> None:
    ruleset = Ruleset(rules=(FLOOD,))
    state = PartitionState("mcp.events", 0, max_groups=2)
    rulesets = {ruleset.id: ruleset}
    state.apply(chunk(SwitchStep(0, T0, ruleset.id, 1)), rulesets)
    rows = [Row(1 + n, 0, service=f"s{n % 3}") for n in range(9)]
    changes = state.apply(chunk(columns(*rows)), rulesets)
    assert changes.overflow == {"flood": 3}
    assert [item.source for item in changes.transitions] == ["s0", "s1"]


def test_sums_are_exact_whatever_their_size() -> None:
    huge = Rule(name="huge", measure=ratio(field.outcome == "ok"), over="60s", every="10s", warning=above(0.5), summary="{value}")
    state, rulesets = started(huge)
    rows = [Row(1, 0, weight=1_000_000, outcome="ok"), Row(2, 0, weight=999_999, outcome="timeout"), Row(3, 0, outcome="timeout")]
    changes = state.apply(chunk(columns(*rows)), rulesets)
    assert [item.status for item in changes.transitions] == ["firing", "resolved"], "one half is not above 0.5"
