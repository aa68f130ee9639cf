"""Section 7 of docs/semantics.md in examples worked out by hand, and the conditions of the specification.

Times are seconds since the log began; see `drawing` for how logs and outcomes are drawn.
"""

from __future__ import annotations

from typing import Any

import pytest

from schemas.alert import fingerprint
from schemas.rule import (
    Rule,
    above,
    absence,
    below,
    count,
    equal,
    error_rate,
    event,
    mean,
    metric_threshold,
    performance_regression,
    ratio,
    security_violation,
)
from tests.kernel.drawing import WARNING, Fold, drawn, edited, log, micros, row, rule, tick, timed

# --- 7: transitions ---


def test_transitions_of_one_row_come_by_time_then_rule_then_group(fold: Fold) -> None:
    """All quiet since 0 s. b looks every second, and a every two."""
    rules = [
        Rule(name="b", condition=absence(for_="4s", every="1s")),
        Rule(name="a", condition=absence(for_="4s", every="2s")),
        rule("c", measure=count(), warning=above(0)),
    ]
    entries = [row(0.5, "y"), row(0.5, "x"), row(6, "y")]
    assert timed(fold, rules, *entries) == drawn("""
        0.5 c y fired warning 1
        0.5 c x fired warning 1
        5 b x fired warning 0
        5 b y fired warning 0
        6 a x fired warning 0
        6 a y fired warning 0
        6 c x recovered warning 0
        6 c y recovered warning 0
        6 c y fired warning 1
    """)


def test_groups_are_ordered_by_their_texts_in_the_order_of_by(fold: Fold) -> None:
    quiet = Rule(name="quiet", condition=absence(by=("tool", "service", "tenant"), for_="4s", every="2s"))
    entries = [row(0, "z", tool="a"), row(0, "a", tool="b"), row(0, "é", tool="a"), row(0, "Z", tool="a")]
    assert [text.split()[2] for text in timed(fold, [quiet], *entries, tick(6))] == ["Z", "z", "é", "a"]


def test_a_transition_says_all_there_is_to_say(fold: Fold) -> None:
    failing = Rule(
        name="failing",
        by=("tenant", "service", "attributes.region"),
        measure=ratio(event.outcome == "timeout"),
        over="4s",
        every="2s",
        warning=equal(0.5, tolerance=0.1),
        cooldown="7s",
        channels=("log", "webhook"),
        summary="{service} in {region}: {value:.0%}, {threshold}, {severity}",
        runbook="https://runbooks/failing",
        annotations={"team": "a", "summary": "replaced"},
        unit="share",
    )
    found = fold(log([failing], row(1, region_="eu\n"), row(2, region_="eu\n", outcome="timeout"), row(3, region_="eu\n")))
    fired, resolved = found.transitions
    assert fired.model_dump(mode="json") == {
        "v": 1,
        "id": fired.id,
        "dedup_key": fired.dedup_key,
        "rule": "failing",
        "revision": failing.revision,
        "status": "firing",
        "severity": "warning",
        "source": "files",
        "tenant": "acme",
        "labels": {"tenant": "acme", "service": "files", "region": "eu\n"},
        "annotations": {
            "team": "a",
            "summary": "files in eu?: 50%, 0.4 to 0.6, warning",
            "runbook": "https://runbooks/failing",
        },
        "message": "files in eu?: 50%, 0.4 to 0.6, warning",
        "details": {
            "cooldown": 7_000_000,
            "kind": "fired",
            "ordinal": 0,
            "partition": 3,
            "offset": 2,
            "index": 0,
            "append_time": micros(2),
        },
        "value": 0.5,
        "threshold": [0.4, 0.6],
        "unit": "share",
        "window": {"start": "2023-11-14T22:13:20.000000Z", "end": "2023-11-14T22:13:24.000000Z"},
        "started_at": "2023-11-14T22:13:22.000000Z",
        "timestamp": "2023-11-14T22:13:22.000000Z",
        "decided_at": "2023-11-14T22:13:22.000000Z",
        "resolved_at": None,
        "reason": "condition_met",
        "fire_count": 1,
        "channels": ["log", "webhook"],
        "evidence": [{"topic": "mcp.events", "partition": 3, "first_offset": 1, "last_offset": 2, "events": 2}],
    }
    assert (resolved.status, resolved.reason, resolved.details["ordinal"], resolved.value) == ("resolved", "recovered", 1, 1 / 3)
    assert resolved.message == resolved.annotations["summary"] == "Resolved: files in eu?: 33%, 0.4 to 0.6, warning"
    assert resolved.resolved_at == resolved.decided_at == micros(3)
    assert resolved.started_at == fired.started_at
    assert resolved.dedup_key == fired.dedup_key


def test_a_resolution_is_told_with_the_threshold_that_was_crossed(fold: Fold) -> None:
    failing = rule(measure=mean("dur_us"), warning=above(10), critical=above(50), recover=below(5), summary="{value} {threshold}")
    gone = edited(failing, levels=[WARNING | {"when": above(10)}])
    first, last = [row(0, dur_us=60), row(0, dur_us=-60), row(0, dur_us=60)], row(0, dur_us=100)
    found = fold(log([failing], *first, last, [gone], [])).transitions
    assert [(each.message, each.threshold) for each in found] == [
        ("60 50", 50),
        ("Resolved: 0 50", 5),
        ("20 10", 10),
        ("Resolved: no value 10", None),
    ]
    assert fold(log([failing], first[0], [gone], [])).transitions[-1].message == "Resolved: no value no value"


def test_ids_are_of_the_episode_and_of_what_is_said(fold: Fold) -> None:
    slow = rule(measure=mean("dur_us"), warning=above(10), critical=above(50))
    values = [20, 200, -999, 9999]
    found = fold(log([slow], *(row(0, dur_us=value) for value in values))).transitions
    labels = [["service", "files"], ["tenant", "acme"]]
    first = fingerprint("r", labels, "mcp.events", 3, 1, 0, micros(0))
    second = fingerprint("r", labels, "mcp.events", 3, 4, 0, micros(0))
    assert [(each.dedup_key, each.id) for each in found] == [
        (first, fingerprint(first, slow.revision, "fired", 0)),
        (first, fingerprint(first, slow.revision, "raised", 1)),
        (first, fingerprint(first, slow.revision, "resolved", 2)),
        (second, fingerprint(second, slow.revision, "fired", 0)),
    ]


# --- the constructors ---------------------------------------------------------------------------------------------


SECURITY: dict[str, Any] = {"kind": "security", "reason": "authn"}
SHORT: dict[str, Any] = {"every": "2s"}


@pytest.mark.parametrize(
    ("condition", "entries", "expected"),
    [
        (metric_threshold("dur_us", ">", 10, "4s", **SHORT), [row(0, dur_us=11)], "0 r files fired high 11"),
        (metric_threshold("dur_us", ">", 10, "4s", service="other", **SHORT), [row(0, dur_us=11)], ""),
        (
            metric_threshold("rss", "<", 9, "4s", **SHORT),
            [row(0, kind="metric", name="rss", value=8.5)],
            "0 r files fired high 8.5",
        ),
        (metric_threshold("rss", "<", 9, "4s", **SHORT), [row(0, kind="metric", name="cpu", value=8.5)], ""),
        (metric_threshold("attributes.x", "==", 1, "4s", tolerance=0.5, **SHORT), [row(0, x_=1.5)], "0 r files fired high 1.5"),
        (error_rate("*", 0.5, "4s", at_least=2, **SHORT), [row(0, outcome="timeout")] * 2, "0 r files fired high 1"),
        (error_rate("*", 0.5, "4s", at_least=2, **SHORT), [row(0, outcome="timeout", kind="perf")] * 2, ""),
        (security_violation("authn", 1, "4s", **SHORT), [row(0, result="fail", **SECURITY)] * 2, "0 r files fired high 2"),
        (security_violation("*", 1, "4s", **SHORT), [row(0, result="ok", **SECURITY)] * 2, ""),
        (
            performance_regression("dur_us", 0.5, "4s", current="2s", at_least=2, **SHORT),
            [row(0, dur_us=2), row(2, dur_us=4), row(2, dur_us=4)],
            "2 r files fired high 1",
        ),
        (absence(for_="4s", **SHORT), [row(0), tick(6)], "6 r files fired high 0"),
    ],
)
def test_the_conditions_of_the_specification(fold: Fold, condition: Any, entries: list[Any], expected: str) -> None:
    judged = Rule(name="r", condition=condition, severity="high", summary="{value}")
    assert timed(fold, [judged], *entries) == drawn(expected)
