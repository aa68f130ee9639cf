"""docs/events.md tells of every field, word and reason, and its examples are events."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.dead_letter import DeadReason
from schemas.event import Event, parse_event
from schemas.expression import type_of, words

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`[^|]+) \| ([^|]+) \| (.+) \|$", PAGE, re.MULTILINE)


def test_every_field_stands_in_a_table_with_its_type() -> None:
    told: dict[str, set[str]] = {}
    for names, types, _ in ROWS:
        fields = re.findall(r"`(\w+)`", names)
        held = [each.strip() for each in types.split(",") if not each.strip().startswith(("required", "`"))]
        for place, name in enumerate(fields):
            told.setdefault(name, set()).add(held[place] if len(held) == len(fields) else held[0])
    assert set(told) == set(Event.model_fields)
    said = {"time": "integer", "word": "text", "name": "text", "integer 1 to 1": "integer"}
    for name, held_as in type_of.items():
        assert {said.get(each, each) for each in told[name]} == {held_as}, name


def test_every_word_is_told() -> None:
    rows = {names: meaning for names, types, meaning in ROWS if types.startswith("word")}
    assert {name.strip("`") for name in rows} == set(words)
    for name, known in words.items():
        assert set(re.findall(r"`(\w+)`", rows[f"`{name}`"])) == set(known)


def test_every_kind_has_a_section() -> None:
    assert re.findall(r"^### (\w+):", PAGE, re.MULTILINE) == list(words["kind"])


def test_the_examples_are_events() -> None:
    examples = re.findall(r"^```json\n(.+)\n```$", PAGE, re.MULTILINE)
    assert [parse_event(example.encode()).kind for example in examples] == ["operation", "security", "metric"]
    (published,) = re.findall(r"echo '(.+)'", PAGE)
    assert parse_event(published.encode()).kind == "perf"


def test_every_reason_is_told() -> None:
    assert {reason.value for reason in DeadReason} <= set(
        re.findall(r"`(\w+)`", PAGE.partition("## What becomes a dead letter")[2])
    )
