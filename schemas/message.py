"""The text of an alert: a rule's summary with what was found filled in."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Final

from schemas.rule import Rule
from schemas.time import duration_text

MAX_LABEL: Final = 64
Number = float | tuple[float, float] | None


def render(rule: Rule, labels: Mapping[str, str], severity: str, value: float | None, threshold: Number) -> str:
    """The summary of `rule` for one group. Labels are attacker-controlled, so they are cut and made printable."""
    texts: dict[str, str] = {name: printable(text) for name, text in labels.items()}
    texts |= {"rule": rule.name, "severity": severity, "unit": rule.unit, "over": duration_text(rule.over)}
    numbers: dict[str, Number] = {"value": value, "threshold": threshold}
    parts = []
    for literal, name, form, _ in string.Formatter().parse(rule.summary):
        parts.append(literal)
        if name in numbers:
            parts.append(_number(numbers[name], form or "g"))
        elif name is not None:
            parts.append(texts[name])
    return "".join(parts)


def printable(text: str) -> str:
    """`text` without control characters and line breaks, at most 64 characters."""
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_LABEL]


def _number(number: Number, form: str) -> str:
    if number is None:
        return "no value"
    if isinstance(number, tuple):
        return f"{_number(number[0], form)} to {_number(number[1], form)}"
    if form == "percent":
        return f"{number * 100:.3g} %"
    return format(int(number), form) if form.endswith("d") else format(number, form)
