from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from schemas.message import render
from schemas.rule import Rule, above, count

LABELS = {"tenant": "acme", "service": "files", "tool": "read"}


def rule(summary: str, **more: Any) -> Rule:
    said: dict[str, Any] = {
        "name": "slow-tools",
        "by": ("tenant", "service", "tool"),
        "measure": count(),
        "over": "90s",
        "every": "30s",
    }
    return Rule(**said | {"warning": above(3), "summary": summary} | more)


def text(summary: str, value: float | None = 0.25, threshold: Any = 0.2, labels: dict[str, str] = LABELS, **more: Any) -> str:
    return render(rule(summary, **more), labels, "high", value, threshold)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("{tool} on {service} of {tenant}", "read on files of acme"),
        ("{rule} is {severity} over {over}", "slow-tools is high over 1m30s"),
        ("{value} {unit} exceed {threshold}", "0.25 ms exceed 0.2"),
        ("{value:.0%} of calls", "25% of calls"),
        ("{value:percent}, more than {threshold:percent}", "25 %, more than 20 %"),
        ("{value:.1f} {value:.2} {value:,}", "0.2 0.25 0.25"),
        ("{{value}} is no field", "{value} is no field"),
    ],
)
def test_a_summary_is_filled_in(summary: str, expected: str) -> None:
    assert text(summary, unit="ms") == expected


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("", 1234567.0, "1.23457e+06"),
        (":g", 3.0, "3"),
        (":,d", 1234567.0, "1,234,567"),
        (":d", -0.9, "-1"),
        (":.2d", 41.6, "42"),
        (":percent", 0.05, "5 %"),
        (":percent", 0.123456, "12.3 %"),
        (":.1percent", 0.123456, "1e+01 %"),
        (":,percent", 12.3, "1.23e+03 %"),
        (":%", 0.5, "50.000000%"),
    ],
)
def test_a_number_takes_its_form(form: str, value: float, expected: str) -> None:
    assert text("{value" + form + "}", value) == expected


def test_what_has_no_value_says_so_in_any_form() -> None:
    assert text("{value:.0%} of {threshold:percent}", None, None) == "no value of no value"


def test_a_range_is_said_from_low_to_high() -> None:
    assert text("not within {threshold:.1f}", 3.0, (0.5, 1.5)) == "not within 0.5 to 1.5"


def test_labels_are_printable_and_short() -> None:
    hostile = {"tenant": "a\nb\r\x1b[31m\u2028\u202ec", "service": "s" * 65, "tool": "{value}"}
    assert text("{tenant}|{service}|{tool}", labels=hostile) == "a?b??[31m??c|" + "s" * 64 + "|{value}"


def test_the_names_of_the_rule_win_over_labels() -> None:
    by = ("tenant", "service", "severity", "attributes.value")
    labels = LABELS | {"severity": "forged", "value": "forged"}
    assert text("{severity} {value}", labels=labels, by=by) == "high 0.25"


@pytest.mark.parametrize("number", [0.0, -0.0, -1.5, 2.0**53, 1e300, -1e-9, None, (-1.0, 1e300)])
def test_every_form_that_a_rule_may_hold_can_be_rendered(number: Any) -> None:
    for comma, precision, kind in product(("", ","), ("", ".0", ".9"), ("", "g", "f", "%", "d", "percent")):
        form = comma + precision + kind
        assert text("{value" + (f":{form}" if form else "") + "}", number)
