"""Selections: conditions over the fields of one event, written in Python, checked, hashed and shipped as JSON.

    (event.kind == "operation") & event.tool.in_("read", "write") & ~(event.attributes["region"] == "eu")

A field that an event does not carry equals nothing: every comparison with it is false, except `!=`, which is true.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from schemas import event as _event
from schemas.event import MAX_NUMBER, MAX_TEXT, Event

MAX_DEPTH: Final = 64
_HELD: Final = {str: "text", int: "integer", float: "number", bool: "boolean"}


def _held(annotation: Any) -> str:
    """What a field of Event holds, looked up through `| None`, Annotated and Literal."""
    while annotation not in _HELD:
        if get_origin(annotation) is Literal:
            return "text"
        annotation = get_args(annotation)[0]
    return _HELD[annotation]


type_of: Final = {name: _held(field.annotation) for name, field in Event.model_fields.items() if name != "attributes"}
"""What each field of an event holds: text, integer, number or boolean."""
words: Final[dict[str, tuple[str, ...]]] = {
    "kind": get_args(_event.Kind),
    "outcome": get_args(_event.Outcome),
    "fault": get_args(_event.Fault),
    "side": get_args(_event.Side),
}
"""The closed vocabularies: a rule that compares with another word could never match."""
numeric_fields: Final = frozenset(name for name, held in type_of.items() if held in ("integer", "number"))

Scalar = str | bool | int | float
Value = Annotated[StrictStr | StrictBool | StrictInt | StrictFloat, Field(union_mode="left_to_right")]
Comparison = Literal["==", "!=", "<", "<=", ">", ">="]


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @cached_property
    def _text(self) -> str:
        return self.model_dump_json()

    @cached_property
    def depth(self) -> int:
        """How deep conditions are nested in this one, itself included."""
        of = getattr(self, "of", ())
        return 1 + max((part.depth for part in (of if isinstance(of, tuple) else (of,))), default=0)

    @model_validator(mode="after")
    def _shallow(self) -> Self:
        if self.depth > MAX_DEPTH:
            raise ValueError(f"conditions are nested at most {MAX_DEPTH} deep; write a chain of | as in_(...)")
        return self

    # As JSON, since in Python True equals 1, and here they are different conditions.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __and__(self, other: Predicate) -> Predicate:
        return AllOf(of=(self, other))  # type: ignore[arg-type]

    def __or__(self, other: Predicate) -> Predicate:
        return AnyOf(of=(self, other))  # type: ignore[arg-type]

    def __invert__(self) -> Predicate:
        return Not(of=self)  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        raise TypeError("combine conditions with & | ~ and parentheses, not with 'and', 'or', 'not' or chained comparisons")


class FieldReference(BaseModel):
    """A field of the event, or one of its attributes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    attribute: bool = False

    @model_validator(mode="after")
    def _known(self) -> FieldReference:
        if not self.attribute and self.field not in type_of:
            raise ValueError(f"events have no field '{self.field}'; use event.attributes['{self.field}'] for one of your own")
        if self.attribute and not 0 < len(self.field) <= MAX_TEXT:
            raise ValueError(f"the name of an attribute has 1 to {MAX_TEXT} characters")
        return self


class Compare(_Node):
    """`field <operator> value`, for one value. Ordering operators take numbers only."""

    op: Literal["compare"] = "compare"
    left: FieldReference
    comparison: Comparison
    value: Value

    @model_validator(mode="after")
    def _comparable(self) -> Compare:
        _check_value(self.left, self.value)
        if self.comparison not in ("==", "!=") and (isinstance(self.value, str | bool)):
            raise ValueError(f"'{self.comparison}' compares numbers, and {self.value!r} is none")
        return self


class Among(_Node):
    """`field` is one of `values`."""

    op: Literal["among"] = "among"
    left: FieldReference
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _comparable(self) -> Among:
        for value in self.values:
            _check_value(self.left, value)
        return self


class Exists(_Node):
    """`field` is present and not null."""

    op: Literal["exists"] = "exists"
    left: FieldReference


class AllOf(_Node):
    """Every one of `of` matches."""

    op: Literal["and"] = "and"
    of: Annotated[tuple[Predicate, ...], Field(min_length=1, max_length=64)]


class AnyOf(_Node):
    """At least one of `of` matches."""

    op: Literal["or"] = "or"
    of: Annotated[tuple[Predicate, ...], Field(min_length=1, max_length=64)]


class Not(_Node):
    """`of` does not match."""

    op: Literal["not"] = "not"
    of: Predicate


class Everything(_Node):
    """Every event."""

    op: Literal["everything"] = "everything"


Predicate = Annotated[Compare | Among | Exists | AllOf | AnyOf | Not | Everything, Field(discriminator="op")]
for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()


def _check_value(left: FieldReference, value: Scalar) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= MAX_NUMBER:
        raise ValueError(f"numbers lie within +-2**53, and {value!r} does not")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError(f"text has at most {MAX_TEXT} characters")
    if left.attribute:
        return
    held = type_of[left.field]
    fits = {"text": str, "boolean": bool, "integer": int | float, "number": int | float}[held]
    if not isinstance(value, fits) or (held != "boolean" and isinstance(value, bool)):
        raise ValueError(f"event.{left.field} holds {held}, so it never equals {value!r}")
    if left.field in words and value not in words[left.field]:
        raise ValueError(f"event.{left.field} is never {value!r}; it is one of {', '.join(words[left.field])}")


class Operand:
    """A field as it is written in a rule: comparing it makes a Predicate."""

    def __init__(self, reference: FieldReference) -> None:
        self.reference = reference

    def __eq__(self, value: Scalar) -> Compare:  # type: ignore[override]
        return Compare(left=self.reference, comparison="==", value=value)

    def __ne__(self, value: Scalar) -> Compare:  # type: ignore[override]
        return Compare(left=self.reference, comparison="!=", value=value)

    def __lt__(self, value: float) -> Compare:
        return Compare(left=self.reference, comparison="<", value=value)

    def __le__(self, value: float) -> Compare:
        return Compare(left=self.reference, comparison="<=", value=value)

    def __gt__(self, value: float) -> Compare:
        return Compare(left=self.reference, comparison=">", value=value)

    def __ge__(self, value: float) -> Compare:
        return Compare(left=self.reference, comparison=">=", value=value)

    def in_(self, *values: Scalar) -> Among:
        """The field is one of `values`."""
        return Among(left=self.reference, values=values)

    def exists(self) -> Exists:
        """The field is present and not null."""
        return Exists(left=self.reference)

    def __bool__(self) -> bool:
        raise TypeError("a field alone is no condition; compare it, or ask .exists()")

    __hash__ = None  # type: ignore[assignment]


class _Attributes:
    def __getitem__(self, name: str) -> Operand:
        return Operand(FieldReference(field=name, attribute=True))


class _EventFields:
    """`event`, as rules see it: one Operand per field of schemas.event.Event."""

    attributes = _Attributes()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Operand(FieldReference(field=name))


event: Final = _EventFields()
