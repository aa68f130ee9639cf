"""Rules: what may be written, what becomes of it, and every message for what may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.condition import Condition
from schemas.expression import AllOf, Everything, FieldReference
from schemas.measure import Count, Max, Mean, Min, Rate, Ratio, Regression, Sum
from schemas.message import render
from schemas.rule import (
    Rule,
    Ruleset,
    above,
    absence,
    attribute,
    below,
    count,
    equal,
    error_rate,
    event,
    max_of,
    mean,
    metric_threshold,
    min_of,
    performance_regression,
    rate,
    ratio,
    security_violation,
    sum_of,
)
from schemas.time import MICROS
from tests.schemas.test_expression import PREDICATES

MINUTE = 60 * MICROS


def rule(**said: Any) -> Rule:
    """A small valid rule, changed."""
    fields: dict[str, Any] = {"name": "a-rule", "measure": count(), "over": "5m", "warning": above(1), "summary": "it happens"}
    fields |= said
    return Rule.model_validate({name: value for name, value in fields.items() if value is not ...})


def conditional(condition: Any, **said: Any) -> Rule:
    return Rule.model_validate({"name": "a-rule", "condition": condition} | said)


# --- round trip --------------------------------------------------------------------------------------------------------

FIELDS = st.sampled_from(
    [FieldReference(field="dur_us"), FieldReference(field="value"), FieldReference(field="x", attribute=True)]
)
MEASURES = st.one_of(
    st.sampled_from([Count(), Rate()]),
    st.builds(Ratio, of=PREDICATES),
    *(st.builds(kind, field=FIELDS) for kind in (Sum, Mean, Min, Max)),
    st.builds(Regression, field=FIELDS, baseline=st.integers(1, 60).map(lambda minutes: minutes * MINUTE)),
)
NUMBERS = st.integers(-(10**9), 10**9).map(lambda units: units / 1000)
THRESHOLDS = st.one_of(
    st.builds(above, NUMBERS, at_least=st.integers(0, 99)),
    st.builds(below, NUMBERS, at_least=st.integers(0, 99)),
    st.builds(equal, NUMBERS, tolerance=NUMBERS.map(abs)),
)
LEVELS = st.dictionaries(st.sampled_from(["info", "warning", "high", "critical"]), THRESHOLDS, min_size=1)
TEXT = st.text(st.characters(exclude_characters="{}", codec="utf-8"), min_size=1, max_size=20)
RULES = st.builds(
    lambda levels, **said: rule(**{"warning": ..., **levels}, **said),
    levels=LEVELS,
    select=PREDICATES,
    measure=MEASURES,
    over=st.just("10m"),
    every=st.sampled_from(["30s", "1m"]),
    recover=st.none() | NUMBERS.map(below),
    hold_for=st.sampled_from(["0s", "90s"]),
    cooldown=st.sampled_from(["15m", "0s"]),
    summary=TEXT,
    annotations=st.dictionaries(TEXT, TEXT, max_size=2),
)


@given(RULES)
def test_a_rule_survives_its_document(made: Rule) -> None:
    text = json.dumps(made.document(), ensure_ascii=False)
    for again in (Rule.model_validate_json(text), Rule.model_validate(json.loads(text)), Rule.model_validate(made.model_dump())):
        assert again == made
        assert again.revision == made.revision
        assert again.document() == made.document()


def test_the_document_is_the_whole_rule() -> None:
    assert rule().document() == {
        "name": "a-rule",
        "select": {"op": "everything"},
        "by": ["tenant", "service"],
        "measure": {"measure": "count"},
        "over": 5 * MINUTE,
        "every": 25 * MICROS,
        "levels": [{"severity": "warning", "when": {"comparison": "above", "value": 1.0, "tolerance": 0.0, "at_least": 0}}],
        "recover": None,
        "hold_for": 0,
        "keep_firing_for": 0,
        "no_data_after": 5 * MINUTE,
        "cooldown": 15 * MINUTE,
        "channels": ["log"],
        "summary": "it happens",
        "runbook": "",
        "unit": "",
        "annotations": {},
    }


def test_the_revision_is_that_of_the_content() -> None:
    assert rule().revision == rule(every="25s", by=["tenant", "service"]).revision
    changes: list[dict[str, Any]] = [
        {"name": "b"}, {"over": "10m"}, {"warning": above(2)}, {"summary": "x"}, {"select": event.attributes["x"] == 1},
        {"select": event.attributes["x"] == True}, {"cooldown": "1m"}, {"annotations": {"a": "b"}},  # noqa: E712
    ]  # fmt: skip
    assert len({rule(**change).revision for change in [{}, *changes]}) == len(changes) + 1


def test_durations_default_to_parts_of_the_window() -> None:
    made = rule(over="10m", keep_firing_for="2m")
    assert (made.every, made.no_data_after) == (50 * MICROS, 12 * MINUTE)
    assert rule(no_data_after="1h").no_data_after == 60 * MINUTE


def test_levels_are_put_in_order() -> None:
    made = rule(critical=above(9), info=above(0))
    assert [level.severity for level in made.levels] == ["info", "warning", "critical"]


# --- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda: rule(name="Tool"),
            "a name is made of lower-case words joined by '-', at most 64 characters, like 'tool-error-rate', not 'Tool'",
        ),
        (lambda: rule(name="a" * 65), "a name is made of lower-case words"),
        (lambda: rule(name="a\n"), "a name is made of lower-case words"),
        (lambda: rule(name="a--b"), "a name is made of lower-case words"),
        (lambda: rule(warning=...), "say when the rule fires: warning=above(...), critical=below(...), or condition=..."),
        (lambda: rule(severity="high"), "severity= goes with condition=; otherwise name the level, as in warning=above(0.2)"),
        (lambda: rule(colour="red"), "Extra inputs are not permitted"),
        (lambda: rule(measure=...), "Field required"),
        (lambda: rule(over=...), "Field required"),
        (lambda: rule(summary=""), "at least 1 character"),
        (lambda: rule(summary="x" * 513), "at most 512 characters"),
        (lambda: rule(annotations={"a": "x" * 513}), "at most 512 characters"),
        (lambda: rule(annotations=dict.fromkeys("abcdefghijklmnopq", "x")), "at most 16 items"),
        (lambda: rule(over="5 minutes"), "'5 minutes' is no duration; write it like '500ms', '30s', '10m', '1h30m' or '14d'"),
        (lambda: rule(cooldown="4000d"), "a duration is at most 3650d"),
        (lambda: rule(every="7s"), "every=7s must be whole milliseconds and divide over=5m evenly"),
        (lambda: rule(every="0s"), "every=0s must be whole milliseconds"),
        (
            lambda: rule(over="0s", every="1s", no_data_after="1s"),
            "every=1s must be whole milliseconds and divide over=0s evenly",
        ),
        (
            lambda: rule(over="10s"),
            "every=833ms must be whole milliseconds and divide over=10s evenly; it is a twelfth of over= unless it is given",
        ),
        (lambda: rule(over="1d", every="1s"), "window and baseline hold at most 1440 slices of every=1s; take a larger every="),
        (lambda: rule(no_data_after="1s"), "no_data_after= is at least every="),
        (lambda: rule(recover=below(1, at_least=2)), "recover= takes no at_least; too few samples hold the state anyway"),
        (lambda: rule(by=("tenant",)), "by= must hold 'tenant' and 'service': a group lives on the partition of its service"),
        (
            lambda: rule(by=("tenant", "service", "dur_us")),
            "events cannot be grouped by 'dur_us'; name text fields, or attributes as",
        ),
        (lambda: rule(by=("tenant", "service", "region")), "events cannot be grouped by 'region'"),
        (lambda: rule(by=("tenant", "service", "attributes.")), "the name of an attribute has 1 to 256 characters"),
        (lambda: rule(by=("tenant", "service", "service")), "by= names at most 8 fields, each once"),
        (
            lambda: rule(by=("tenant", "service", *(f"attributes.{c}" for c in "abcdefg"))),
            "by= names at most 8 fields, each once",
        ),
        (
            lambda: rule(by=("tenant", "service", "tool", "attributes.tool")),
            "by= names a field and an attribute that make the same label",
        ),
        (lambda: rule(channels=("Log",)), "channel 'Log': names hold lower-case letters, digits, '-' and '_'"),
        (lambda: rule(channels=("log",) * 17), "at most 16 items"),
        (
            lambda: rule(summary="{tool} fails"),
            "summary: unknown name {tool}; it may use over, rule, service, severity, tenant, threshold,",
        ),
        (lambda: rule(summary="{} fails"), "summary: unknown name {}"),
        (lambda: rule(summary="{tenant.__class__}"), "summary: unknown name {tenant.__class__}"),
        (lambda: rule(summary="{value!r}"), "summary: {value!r} takes no conversion"),
        (lambda: rule(summary="{value:>9}"), "summary: {value:>9} is no number format; use forms such as .0%, .1f, g"),
        (lambda: rule(summary="{value:{over}}"), "is no number format"),
        (lambda: rule(summary="{tenant:g}"), "summary: {tenant:g} is no number format"),
        (lambda: rule(summary="{"), "summary: "),
        (lambda: rule(summary="50 }"), "write a literal brace twice"),
        (lambda: rule(measure=Regression(field=FieldReference(field="dur_us"), baseline=7)), "must be a multiple of every=25s"),
        (
            lambda: rule(measure=Regression(field=FieldReference(field="dur_us"), baseline=0)),
            "baseline=0s must be a multiple of every=25s",
        ),
        (lambda: rule(warning=..., levels=[]), "at least 1 item"),
        (
            lambda: rule(levels=[{"severity": "high", "when": above(1)}]),
            "give either levels= or single levels such as warning=above(...), not both",
        ),
        (
            lambda: rule(warning=..., levels=[{"severity": "high", "when": above(1)}, {"severity": "high", "when": above(2)}]),
            "each severity has one level",
        ),
        (
            lambda: rule(warning=..., levels=[{"severity": "high", "when": above(1)}, {"severity": "info", "when": above(2)}]),
            "levels are listed from info to critical",
        ),
        (lambda: conditional(above(1)), "condition= takes error_rate(), metric_threshold(), security_violation()"),
        (lambda: conditional(error_rate("*", 0.1, "5m"), warning=above(1)), "give either condition= with severity=, or levels"),
        (
            lambda: conditional(error_rate("*", 0.1, "5m"), over="1m", by=()),
            "by, over: already said by condition=; give it to the constructor",
        ),
        (lambda: conditional(error_rate("*", 0.1, "5m"), severity="low"), "'info', 'warning', 'high' or 'critical'"),
        (lambda: above(float("nan")), "a threshold is a number within +-2**53"),
        (lambda: above(2**53 + 2), "a threshold is a number within +-2**53"),
        (lambda: above(1e-10), "has more than 9 decimal places, and numbers are compared to 9"),
        (lambda: above(1, at_least=-1), "greater than or equal to 0"),
        (lambda: equal(1, tolerance=-1), "tolerance is a number >= 0 and belongs to equal() alone"),
        (lambda: mean("tool"), "event.tool holds text; a measure needs a number"),
        (lambda: sum_of("attributes.x"), "events have no field 'attributes.x'"),
        (lambda: metric_threshold("dur_us", "over", 1, "5m"), "comparison is one of above, >, below, <, equal, ==, not 'over'"),
        (
            lambda: metric_threshold("dur_us", "==", 1, "5m"),
            "comparison 'equal' needs tolerance=, the largest difference that still counts",
        ),
        (lambda: metric_threshold("tool", "above", 1, "5m"), "event.tool holds text; a measure needs a number"),
        (lambda: error_rate("*", 5, "5m"), "an error rate lies between 0 and 1, so the threshold is 0.05 for 5 %, not 5"),
        (lambda: error_rate("*", 0.1, "5m", errors=()), "at least 1 item"),
        (lambda: error_rate("*", 0.1, "5m", errors=("broken",)), "event.outcome is never 'broken'"),
        (lambda: Ruleset(rules=(rule(), rule(over="10m"))), "rule names are used once: a-rule"),
    ],
)
def test_a_message_says_what_is_wrong(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared below, without the marks of an expression
        write()
    assert message in str(raised.value)


@pytest.mark.parametrize("form", ["", ":g", ":.0%", ":.1f", ":,", ":,.2f", ":d", ":percent", ":.1percent"])
def test_numbers_in_a_summary_may_have_a_form(form: str) -> None:
    made = rule(summary=f"{{value{form}}} and {{threshold{form}}} of {{service}}, {{{{literally}}}}")
    assert render(made, {"service": "files", "tenant": "t"}, "high", 0.5, 1.0).endswith(" of files, {literally}")


# --- measures and conditions -------------------------------------------------------------------------------------------


def test_measures() -> None:
    field = FieldReference(field="dur_us")
    assert (count(), rate(), ratio(Everything())) == (Count(), Rate(), Ratio(of=Everything()))
    assert (sum_of("dur_us"), mean(event.dur_us)) == (Sum(field=field), Mean(field=field))
    mine = FieldReference(field="x", attribute=True)
    assert (min_of(attribute("x")), max_of(event.attributes["x"])) == (Min(field=mine), Max(field=mine))


@pytest.mark.parametrize(
    ("condition", "select", "measure", "when", "summary"),
    [
        (
            metric_threshold("dur_us", "above", 5_000_000, "5m"),
            Everything(), mean("dur_us"), above(5_000_000), "dur_us of '{service}' exceeds {threshold:g}",
        ),
        (
            metric_threshold("queue.age", "<", 3, "5m", service="files", at_least=2),
            AllOf(of=(AllOf(of=(event.kind == "metric", event.name == "queue.age")), event.service == "files")),
            mean("value"), below(3, at_least=2), "queue.age of '{service}' is below {threshold:g}",
        ),
        (
            metric_threshold("attributes.{x}", "equal", 3, "5m", tolerance=0.5),
            Everything(), Mean(field=FieldReference(field="{x}", attribute=True)), equal(3, tolerance=0.5),
            "{{x}} of '{service}' equals {threshold:g}",
        ),
        (
            error_rate("*", 0.05, "5m"),
            event.kind == "operation", ratio(event.outcome.in_("tool_error", "rpc_error", "timeout", "transport_error")),
            above(0.05, at_least=20), "Error rate for '{service}' exceeds {threshold:percent}",
        ),
        (
            security_violation("authn", 3, "5m"),
            (event.kind == "security") & (event.result == "fail") & ((event.action == "authn") | (event.reason == "authn")),
            count(), above(3), "More than {threshold:g} security violations of type 'authn' on '{service}'",
        ),
        (
            security_violation("*", 3, "5m"),
            (event.kind == "security") & (event.result == "fail"), count(), above(3),
            "More than {threshold:g} security violations on '{service}'",
        ),
        (
            performance_regression("dur_us", 0.5, "1h"),
            Everything(), Regression(field=FieldReference(field="dur_us"), baseline=60 * MINUTE), above(0.5, at_least=20),
            "dur_us of '{service}' is {value:.0%} above its baseline",
        ),
        (absence(for_="5m"), Everything(), count(), below(1), "No events from '{service}' for 5m"),
    ],
)  # fmt: skip
def test_conditions_of_the_specification(condition: Condition, select: Any, measure: Any, when: Any, summary: str) -> None:
    assert (condition.select, condition.measure, condition.when, condition.summary) == (select, measure, when, summary)
    assert (condition.by, condition.over, condition.every) == (("tenant", "service"), 5 * MINUTE, 25 * MICROS)
    made = conditional(condition, severity="high")
    assert [(level.severity, level.when) for level in made.levels] == [("high", when)]
    assert (made.select, made.measure, made.summary) == (select, measure, summary)
    assert Rule.model_validate_json(json.dumps(made.document())) == made


def test_a_condition_leaves_the_texts_to_the_rule() -> None:
    made = conditional(absence(for_="5m"), summary="silence", unit="events", no_data_after="2d")
    assert (made.summary, made.unit, made.no_data_after, made.levels[0].severity) == (
        "silence",
        "events",
        2 * 86_400 * MICROS,
        "warning",
    )
    assert conditional(absence(for_="5m")).no_data_after == 86_400 * MICROS


# --- rulesets ----------------------------------------------------------------------------------------------------------


def test_the_id_of_a_ruleset_does_not_depend_on_order() -> None:
    one, two = rule(), rule(name="b")
    assert Ruleset(rules=(one, two)).id == Ruleset(rules=(two, one)).id
    assert len({Ruleset(rules=rules).id for rules in ((), (one,), (two,), (one, two), (one, rule(name="b", over="10m")))}) == 5


def test_rules_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        rule().name = "other"
