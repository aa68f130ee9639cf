"""Event structs from bytes: schemas.event.Event as msgspec decodes it, in about a microsecond.

The contract lists the fields, and here its types are translated. A value that msgspec cannot vouch for is parsed once more,
strictly.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from pydantic import StrictBool

from schemas import event as contract
from schemas.dead_letter import DeadReason, Stage
from schemas.event import MAX_ATTRIBUTES, MAX_NUMBER, MAX_TEXT, MAX_WEIGHT
from schemas.strict_json import MAX_DEPTH, OutOfRangeError, strict_loads
from schemas.time import MIN_EVENT_TIME

FAILURES: Final = (ValueError, TypeError, OverflowError, RecursionError, MemoryError)
"""What parsing raises, whatever the bytes are. The errors of msgspec and of pydantic are ValueErrors."""
_MAX_TIME_TEXT: Final = 40
_TOGETHER: Final = 64
_SHORT: Final = 1_024


class Problem(NamedTuple):
    """Why a record is a dead letter."""

    stage: Stage
    reason: DeadReason
    message: str


class Parsed(NamedTuple):
    """Per value its event, or the list of its events: empty where `problems` says, by place, why it was refused.

    `strict` counts the values that were parsed twice.
    """

    found: list[Any]
    problems: dict[int, Problem]
    strict: int


def parse_values(values: list[bytes]) -> Parsed:
    """The events of each value, a JSON object or an array of them. Raises nothing.

    In an event, `ts` is as it was written, an int or text; absent fields are UNSET.
    """
    found: list[Any] = []
    failed: dict[int, Exception] = {}
    decode, add = _DECODER.decode, found.append
    for value in values:
        try:
            add(decode(value))
        except FAILURES as error:
            failed[len(found)] = error
            add(None)
    decoded = [place for place in range(len(found)) if place not in failed] if failed else list(range(len(found)))
    doubtful = sorted([*failed, *_doubtful(values, found, decoded)])
    problems: dict[int, Problem] = {}
    for place in doubtful:
        problem = _problem_of(values[place], failed.get(place))
        if problem is not None:
            problems[place], found[place] = problem, []
    return Parsed(found, problems, len(doubtful))


def elements(value: bytes) -> list[bytes]:
    """The JSON objects of an array that `parse_values` took, as they were written."""
    return list(map(bytes, _RAW.decode(value)))


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__


def _vouched_for(text: bytes, events: Any) -> bool:
    """Whether `text`, one value or several joined, decoded to `events` by the strict rules for sure.

    msgspec takes nothing but JSON with known fields of the right types; but it overwrites what occurs twice, and skips
    unknown fields without a look at their text, numbers and depth. The colons tell. Where there is no backslash, the
    colons of a value are one for each member of an object, at any depth, and those inside names and texts, which
    stand there as they are. When the events are encoded again, there is one for each member that was kept (what was
    absent is UNSET and not written), and those inside the same names and texts; nothing that the encoder escapes or leaves
    out is a colon. What was overwritten or skipped was a member and had at least its own colon. So a value has at least as
    many colons as its encoding, and as many only if nothing was lost. As that holds for each value, it holds for their sums.

    What was kept is of known types: no depth, no NaN, no infinities, and text that was checked as UTF-8. One integer
    beyond +-2**53 would pass as a number, the one that a double rounds to 2**53; it is looked for.
    """
    return b"\\" not in text and _ROUNDED not in text and _colons(text) == _colons(_ENCODER.encode(events))


def _doubtful(values: list[bytes], found: list[Any], places: list[int]) -> list[int]:
    """Those of `places` whose values were decoded but cannot be vouched for. They are rare, so many are looked at together."""
    doubtful: list[int] = []
    for start in range(0, len(places), _TOGETHER):
        part = places[start : start + _TOGETHER]
        if not _vouched_for(b"".join([values[place] for place in part]), [found[place] for place in part]):
            doubtful += [place for place in part if not _vouched_for(values[place], found[place])]
    return doubtful


def _colons(text: bytes) -> int:
    return text.count(b":") if len(text) < 4096 else int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord(":")))


def _problem_of(value: bytes, failure: Exception | None) -> Problem | None:
    """What is wrong with a value that msgspec decoded, or failed to decode with `failure`.

    What it takes for no JSON at all is none, unless a number is out of range. The strict reading takes as long as ten good
    events, so it is left out where it could say nothing new.
    """
    is_typed = isinstance(failure, msgspec.ValidationError)
    if is_typed and _is_json(value):
        return _ill_typed(failure)
    if failure is not None and not is_typed and "out of range" not in str(failure):
        return Problem("decode", DeadReason.UNDECODABLE, _fault_of(value, failure))
    try:
        strict_loads(value)
    except OutOfRangeError as error:
        return _ill_typed(failure if is_typed else error)
    except FAILURES as error:
        return Problem("decode", DeadReason.UNDECODABLE, first_line(error))
    if is_typed:
        return _ill_typed(failure)
    return None if failure is None else Problem("decode", DeadReason.UNDECODABLE, first_line(failure))


def _fault_of(value: bytes, failure: Exception) -> str:
    """What is wrong with a value that is no JSON. A short text is read once more, since Python's own reader says it better."""
    if len(value) > _SHORT:
        return first_line(failure)
    try:
        json.loads(value.decode())
        strict_loads(value)  # it took NaN, say
    except FAILURES as error:
        return first_line(error)
    return first_line(failure)


def _is_json(value: bytes) -> bool:
    """Whether `value` is JSON by the strict rules for sure, but for the size of its numbers. See `_vouched_for`."""
    if b"\\" in value or value.count(b"{") + value.count(b"[") > MAX_DEPTH:
        return False
    try:
        decoded = msgspec.json.decode(value)
    except FAILURES:
        return False
    return _colons(value) == _colons(_ENCODER.encode(decoded))


def _ill_typed(error: Exception | None) -> Problem:
    message = str(error)
    hint = "; a time is integer microseconds since the epoch or RFC 3339 text" if message.endswith(".ts`") else ""
    return Problem("validate", DeadReason.ILL_TYPED, message + hint)


# --- the fields of Event, as msgspec types -------------------------------------------------------------------------

_TEXT = Annotated[str, Meta(max_length=MAX_TEXT)]
_NAME = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
_TIME = Annotated[int, Meta(ge=MIN_EVENT_TIME, le=MAX_NUMBER)]
_INTEGER = Annotated[int, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_NUMBER = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
_TYPES: Final[tuple[tuple[Any, Any], ...]] = (
    (contract.Text, _TEXT),
    (contract.Name, _NAME),
    (contract.Integer, _INTEGER),
    (contract.Version, Annotated[int, Meta(ge=contract.VERSION, le=contract.VERSION)]),
    (contract.Number, _NUMBER),
    (contract.Weight, Annotated[int, Meta(ge=1, le=MAX_WEIGHT)]),
    (contract.Attributes, Annotated[dict[_NAME, _TEXT | bool | _INTEGER | _NUMBER], Meta(max_length=MAX_ATTRIBUTES)]),
    (contract.Timestamp, _TIME | Annotated[str, Meta(max_length=_MAX_TIME_TEXT)]),
    (StrictBool, bool),
    *((words, words) for words in (contract.Kind, contract.Outcome, contract.Fault, contract.Side)),
)
_ROUNDED: Final = str(MAX_NUMBER + 1).encode()


def _typed(name: str, annotation: Any) -> Any:
    for known, typed in _TYPES:
        if annotation == known:
            return typed
        if annotation == known | None:
            return typed | None
    raise TypeError(
        f"streams/wire.py knows no msgspec type for {annotation}, the type of field '{name}' of Event; add it to _TYPES"
    )


def _fields() -> list[Any]:
    """The fields of Event. All that have a default are UNSET here, so that only what was written is encoded again."""
    hints = get_type_hints(contract.Event, include_extras=True)
    fields: list[Any] = []
    for name, info in contract.Event.model_fields.items():
        typed = _typed(name, hints[name])
        fields.append((name, typed) if info.is_required() else (name, typed | UnsetType, UNSET))
    return fields


# Events hold nothing that refers back to them, so the cycle collector need not know them.
EventStruct: Final[Any] = msgspec.defstruct("EventStruct", _fields(), gc=False, eq=False)
_DECODER: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(EventStruct | list[EventStruct])
_ENCODER: Final = msgspec.json.Encoder()
_RAW: Final = msgspec.json.Decoder(list[msgspec.Raw])
