"""What streams.testing gives to the authors of rules: placed events, honest failures, errors that name the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.event import Event
from schemas.rule import Rule, above, absence, count, error_rate
from streams import testing
from streams.testing import (
    START,
    ExampleError,
    ExamplesFailed,
    FakeClock,
    Tick,
    check_examples,
    event,
    examples_path,
    load_examples,
    run_rule,
    tick,
)

MINUTE = 60_000_000
BUSY = Rule(name="too-busy", measure=count(), over="1m", every="10s", high=above(2), summary="{value:g} on {service}")
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = examples_path(BUSY, tmp_path)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_clock_stands_still_until_it_is_told_to_go_on() -> None:
    clock = FakeClock()
    assert (clock(), clock()) == (START, START)
    assert clock.advance("90s") == clock() == START + 90_000_000
    assert clock.advance(1) == START + 90_000_001


def test_events_are_placed_after_the_start_or_at_a_time() -> None:
    assert event("1m", tool="read").ts == event(START + MINUTE).ts == START + MINUTE
    assert (event().kind, event().service, event(kind="perf").kind) == ("operation", "files", "perf")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"outcom": "ok"}, "'outcom'; did you mean 'outcome'"),
        ({"ts": 5}, "given by 'at'"),
        ({"outcome": "error"}, "outcome: "),
        ({"dur_us": "5"}, "dur_us: "),
    ],
)
def test_events_that_the_engine_would_refuse_or_overlook(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        event(**fields)


def test_a_rule_is_run_by_the_engine_itself() -> None:
    fired, resolved = run_rule(BUSY, [event("1s"), event("2s"), event("3s"), tick("5m")])
    assert (fired.status, fired.decided_at, fired.message) == ("firing", START + 3_000_000, "3 on files")
    assert fired.evidence is not None
    assert (fired.evidence[0].first_offset, fired.evidence[0].last_offset, fired.evidence[0].events) == (1, 3, 3)
    assert (resolved.status, resolved.reason, resolved.decided_at) == ("resolved", "recovered", START + 70_000_000)


def test_a_tick_moves_time_to_where_it_says_and_no_further() -> None:
    rule = Rule(name="gone", condition=absence(for_="1m", every="10s"))
    assert run_rule(rule, [event(), tick(START + 70_000_000 - 1)]) == []
    assert [each.decided_at for each in run_rule(rule, [event(), tick("70s")])] == [START + 70_000_000]


def test_a_late_event_arrives_when_it_is_sent() -> None:
    assert run_rule(BUSY, [event("5m"), event("1m"), event("1m"), event("1m")]) == []
    assert len(run_rule(BUSY, [event("1m"), event("1m"), event("1m"), event("5m")])) == 2


def test_no_record_may_be_refused_in_silence() -> None:
    with pytest.raises(ValueError, match="the engine refuses event 1: "):
        run_rule(BUSY, [event().model_copy(update={"outcome": "error"})])


def test_lines_are_merged_by_time_and_ticks_come_after_what_is_above(write: Write) -> None:
    path = write(
        '{"common": {"service": "s", "tool": "a"}}\n'
        "\n"
        '{"example": "x", "expect": []}\n'
        '{"at": "1s", "repeat": 3, "every": "10s"}\n'
        '{"at": "5s", "tool": "b"}\n'
        '{"tick": "1m"}\n'
        '{"at": "2s", "tool": null, "attributes": {"region": "eu"}}\n'
    )
    (example,) = load_examples(path)
    assert (example.name, example.line, example.fires) == ("x", 3, False)
    placed = [
        ((step.at - START) // 1_000_000, None) if isinstance(step, Tick) else ((step.ts - START) // 1_000_000, step.tool)
        for step in example.steps
    ]
    assert placed == [(1, "a"), (5, "b"), (11, "a"), (21, "a"), (81, None), (2, None)]
    last = example.steps[-1]
    assert isinstance(last, Event)
    assert last.attributes == {"region": "eu"}


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("[]", "0 transitions were expected, and there were 1"),
        ('[{"status": "resolved"}]', 'status of 1 is "firing", not "resolved"'),
        ('[{"status": "firing", "severity": "info"}]', 'severity of 1 is "high", not "info"'),
        ('[{"status": "firing", "at": "3s"}]', 'at of 1 is "2s", not "3s"'),
        ('[{"status": "firing", "value": 4}]', "value of 1 is 3.0, not 4"),
        ('[{"status": "firing", "labels": {"tool": "a"}}]', 'labels of 1 is {"tool": null}, not {"tool": "a"}'),
        ('[{"status": "firing"}, {"status": "resolved"}]', "2 transitions were expected, and there were 1"),
    ],
)
def test_a_failure_shows_what_was_expected_and_what_happened(write: Write, expect: str, said: str) -> None:
    path = write('{"example": "x", "expect": ' + expect + '}\n{"repeat": 3, "every": "1s"}\n')
    with pytest.raises(ExamplesFailed) as raised:
        check_examples(BUSY, path)
    text = str(raised.value)
    assert text.startswith(f"{path}:1: too-busy: x\n    expected ")
    assert 'found    {"status": "firing", "severity": "high", "at": "2s", "reason": "condition_met", "value": 3.0' in text
    assert "3 of 3 events match select=" in text
    assert said in text


def test_a_failure_tells_of_events_that_were_not_meant_or_late(write: Write) -> None:
    rule = Rule(name="failing", condition=error_rate("*", 0.1, "1m", every="10s"))
    path = write(
        '{"example": "x", "expect": [{"status": "firing"}]}\n'
        '{"kind": "perf", "repeat": 5, "every": "1s"}\n'
        '{"tick": "10m"}\n'
        '{"at": "1m"}\n'
    )
    with pytest.raises(ExamplesFailed, match=r"found    nothing\n    1 of 6 events match select=, 1 came late"):
        check_examples(rule, path)


def test_every_failing_example_is_reported(write: Write) -> None:
    path = write("".join(f'{{"example": "{name}", "expect": [{{"status": "firing"}}]}}\n{{}}\n' for name in "abc"))
    with pytest.raises(ExamplesFailed) as raised:
        check_examples(BUSY, path)
    assert [line.rpartition(" ")[2] for line in str(raised.value).splitlines() if line.startswith(str(path))] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "Expecting value"),
        ("[]", "a line is a JSON object"),
        ('{"at": "5"}', "'5' is no duration"),
        ('{"repeat": 3}', '"repeat" goes with "every"'),
        ('{"repeat": 0, "every": "1s"}', '"repeat" is a number from 1'),
        ('{"repeat": true, "every": "1s"}', '"repeat" is a number from 1'),
        ('{"outcom": "ok"}', "did you mean 'outcome'"),
        ('{"tool": "a", "tool": "b"}', "occurs twice"),
        ('{"tick": "5m", "tool": "a"}', "'tool' does not belong here"),
        ('{"common": {}}', "before the first example"),
        ('{"example": "x", "expect": []}', "'x' is taken"),
        ('{"example": "", "expect": []}', '"example" says'),
        ('{"example": "y"}', '"expect" is a list'),
        ('{"example": "y", "expects": []}', "did you mean 'expect'"),
        ('{"example": "y", "expect": [{}]}', '"status", firing or resolved'),
        ('{"example": "y", "expect": [{"status": "firing", "sevrity": "high"}]}', "did you mean 'severity'"),
        ('{"example": "y", "expect": [{"status": "firing", "at": "soon"}]}', "'soon' is no duration"),
    ],
)
def test_errors_name_file_and_line(write: Write, line: str, said: str) -> None:
    path = write('{"example": "x", "expect": []}\n\n' + line + "\n")
    with pytest.raises(ExampleError) as raised:
        load_examples(path)
    assert str(raised.value).startswith(f"{path}:3: ")
    assert said in str(raised.value)


def test_a_file_without_examples_is_an_error(write: Write) -> None:
    with pytest.raises(ExampleError, match="holds no example"):
        load_examples(write('{"common": {}}\n'))
    with pytest.raises(ExampleError, match="events belong to an example"):
        load_examples(write("{}\n"))


def test_the_words_of_the_format_are_no_fields_of_events() -> None:
    words = {"common", "example", "expect", "tick", *testing._PLACED}
    assert not words & set(Event.model_fields)
