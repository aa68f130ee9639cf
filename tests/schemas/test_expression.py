"""Selections as they are written, checked and shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.event import MAX_NUMBER, Event
from schemas.expression import (
    MAX_DEPTH,
    AllOf,
    Among,
    AnyOf,
    Compare,
    Everything,
    Exists,
    FieldReference,
    Not,
    Predicate,
    event,
    numeric_fields,
    type_of,
    words,
)

NAN = float("nan")
PREDICATE: TypeAdapter[Predicate] = TypeAdapter(Predicate)

ATTRIBUTES = st.builds(FieldReference, field=st.text(min_size=1, max_size=5), attribute=st.just(True))
FIELDS = st.sampled_from(sorted(set(type_of) - set(words))).map(lambda name: FieldReference(field=name))
NUMBERS = st.integers(-MAX_NUMBER, MAX_NUMBER) | st.floats(-MAX_NUMBER, MAX_NUMBER)
SCALARS = st.text(max_size=5) | st.booleans() | NUMBERS


@st.composite
def leaves(draw: st.DrawFn) -> Predicate:
    left = draw(ATTRIBUTES | FIELDS)
    held = "any" if left.attribute else type_of[left.field]
    values = {"any": SCALARS, "text": st.text(max_size=5), "boolean": st.booleans()}.get(held, NUMBERS)
    match draw(st.integers(0, 3)):
        case 0:
            return Among(left=left, values=tuple(draw(st.lists(values, min_size=1, max_size=3))))
        case 1:
            return Exists(left=left)
        case 2 if held in ("any", "integer", "number"):
            return Compare(left=left, comparison=draw(st.sampled_from(["<", "<=", ">", ">="])), value=draw(NUMBERS))
        case _:
            return Compare(left=left, comparison=draw(st.sampled_from(["==", "!="])), value=draw(values))


def _combined(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.builds(Not, of=inner) | st.builds(AllOf, of=parts) | st.builds(AnyOf, of=parts)


PREDICATES = st.recursive(leaves() | st.just(Everything()), _combined, max_leaves=5)


@given(PREDICATES)
def test_a_selection_survives_its_json(predicate: Predicate) -> None:
    text = predicate.model_dump_json()
    again = PREDICATE.validate_json(text)
    assert again == predicate
    assert hash(again) == hash(predicate)
    assert again.model_dump_json() == text
    assert PREDICATE.validate_python(json.loads(text)) == predicate


def test_what_is_written_is_what_is_meant() -> None:
    chosen = (event.kind == "operation") & event.tool.in_("read", "write") & ~(
        event.attributes["region"] == "eu"
    ) | event.dur_us.exists()
    assert json.loads(chosen.model_dump_json()) == {
        "op": "or",
        "of": [
            {
                "op": "and",
                "of": [
                    {
                        "op": "and",
                        "of": [
                            {
                                "op": "compare",
                                "left": {"field": "kind", "attribute": False},
                                "comparison": "==",
                                "value": "operation",
                            },
                            {"op": "among", "left": {"field": "tool", "attribute": False}, "values": ["read", "write"]},
                        ],
                    },
                    {
                        "op": "not",
                        "of": {
                            "op": "compare",
                            "left": {"field": "region", "attribute": True},
                            "comparison": "==",
                            "value": "eu",
                        },
                    },
                ],
            },
            {"op": "exists", "left": {"field": "dur_us", "attribute": False}},
        ],
    }


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">="])
def test_every_comparison(operator: str) -> None:
    made = eval(f"event.dur_us {operator} 5", {"event": event})
    assert made == Compare(left=FieldReference(field="dur_us"), comparison=operator, value=5)  # type: ignore[arg-type]


def test_values_that_python_calls_equal_are_different_conditions() -> None:
    values: list[Any] = [True, 1, False, 0, "1", "true"]
    conditions: list[Any] = [event.attributes["x"] == value for value in values] + [
        event.attributes["x"].in_(value) for value in values
    ]
    assert len(set(conditions)) == 2 * len(values)
    assert len({~condition for condition in conditions}) == 2 * len(values)
    assert (event.tool == "a") == (event.tool == "a")


def test_every_field_of_an_event_has_a_type() -> None:
    assert set(type_of) == set(Event.model_fields) - {"attributes"}
    assert (type_of["ts"], type_of["value"], type_of["unknown_target"], type_of["kind"]) == (
        "integer",
        "number",
        "boolean",
        "text",
    )
    assert {"dur_us", "value", "weight", "ts"} <= numeric_fields
    assert {name for name in words if "ok" in words[name]} == {"outcome"}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: event.tol == "x", "events have no field 'tol'; use event.attributes['tol'] for one of your own"),
        (lambda: event.attributes[""] == "x", "the name of an attribute has 1 to 256 characters"),
        (lambda: event.attributes["n" * 257] == "x", "the name of an attribute has 1 to 256 characters"),
        (lambda: event.outcome == "OK", "event.outcome is never 'OK'; it is one of ok, tool_error,"),
        (lambda: event.kind.in_("perf", "trace"), "event.kind is never 'trace'; it is one of operation,"),
        (lambda: event.tool == 5, "event.tool holds text, so it never equals 5"),
        (lambda: event.dur_us == "5", "event.dur_us holds integer, so it never equals '5'"),
        (lambda: event.dur_us == True, "event.dur_us holds integer, so it never equals True"),  # noqa: E712
        (lambda: event.unknown_target == 1, "event.unknown_target holds boolean, so it never equals 1"),
        (lambda: event.tool < "a", "'<' compares numbers, and 'a' is none"),
        (lambda: event.attributes["x"] >= True, "'>=' compares numbers, and True is none"),
        (lambda: event.dur_us > 2**53 + 1, "numbers lie within +-2**53, and 9007199254740993 does not"),
        (lambda: event.value > NAN, "numbers lie within +-2**53, and nan does not"),
        (lambda: event.attributes["x"] < float("inf"), "numbers lie within +-2**53, and inf does not"),
        (lambda: event.tool == "x" * 257, "text has at most 256 characters"),
        (event.tool.in_, "at least 1 item"),
        (lambda: event.tool.in_(*map(str, range(257))), "at most 256 items"),
        (lambda: event.tool == None, "valid string"),  # noqa: E711
    ],
)
def test_a_selection_that_could_never_match_is_refused(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        write()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda: (event.tool == "a") and (event.tool == "b"),
        lambda: (event.tool == "a") or (event.kind == "perf"),
        lambda: not event.tool.exists(),
        lambda: 1 < event.dur_us < 5,
        lambda: event.unknown_target and (event.tool == "a"),
    ],
)
def test_python_words_are_refused_with_the_remedy(write: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"combine conditions with & \| ~|a field alone is no condition; compare it"):
        write()


def test_nesting_is_bounded() -> None:
    deepest: Predicate = event.tool == "a"
    for _ in range(MAX_DEPTH - 1):
        deepest = ~deepest
    assert PREDICATE.validate_json(deepest.model_dump_json()) == deepest
    with pytest.raises(ValidationError, match=f"conditions are nested at most {MAX_DEPTH} deep"):
        Not(of=deepest)
    document = {"op": "everything"}
    for _ in range(5000):
        document = {"op": "not", "of": document}  # type: ignore[dict-item]
    with pytest.raises(ValidationError):
        PREDICATE.validate_python(document)


@pytest.mark.parametrize(
    "document",
    [
        {"op": "call", "of": []},
        {"op": "exists", "left": {"field": "tool"}, "code": "x"},
        {"op": "exists", "left": {"field": "tol"}},
        {"op": "compare", "left": {"field": "tool"}, "comparison": "~", "value": "a"},
        {"op": "and", "of": []},
        {"op": "or", "of": [{"op": "everything"}] * 65},
        {"op": "among", "left": {"field": "tool"}, "values": [None]},
        {},
    ],
)
def test_documents_are_checked_like_what_is_written(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PREDICATE.validate_python(document)
