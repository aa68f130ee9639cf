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
    """The summary of `rule` for one group, whose labels are named as by `label_name`. Raises nothing for a valid rule.

    Where a label and a number or text of the rule share a name, such as `severity`, the rule's own is meant.
    """
    texts: dict[str, str] = {name: printable(text) for name, text in labels.items()}
    texts |= {"rule": rule.name, "severity": severity, "unit": rule.unit, "over": duration_text(rule.over)}
    numbers: dict[str, Number] = {"value": value, "threshold": threshold}
    parts = []
    for literal, name, form, _ in string.Formatter().parse(rule.summary):
        parts.append(literal)
        if name in numbers:
            parts.append(_numbers(numbers[name], form or "g"))
        elif name is not None:
            parts.append(texts[name])
    return "".join(parts)


def printable(text: str) -> str:
    """The first 64 characters of `text`, with '?' for line breaks and whatever else cannot be printed.

    Labels are what any publisher of events likes them to be.
    """
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_LABEL])


def _numbers(number: Number, form: str) -> str:
    if number is None:
        return "no value"
    if isinstance(number, tuple):
        return " to ".join(_number(each, form) for each in number)
    return _number(number, form)


def _number(number: float, form: str) -> str:
    """One number in a form that `Rule` allows: Python's, without the precision that integers cannot have, and `percent`."""
    if form.endswith("percent"):
        form = form.removesuffix("percent")
        return format(number * 100, (form if "." in form else f"{form}.3") + "g") + " %"
    if form.endswith("d"):
        return format(round(number), form.partition(".")[0].removesuffix("d") + "d")
    return format(number, form)
