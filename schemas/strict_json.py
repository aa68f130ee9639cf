"""JSON as records may hold it: what means one thing to every reader, and nothing else.

Refused beside what is no JSON: a name that occurs twice in an object, NaN and infinities, integers beyond +-2**53, numbers
too large for a double, nesting deeper than 8, lone surrogates, invalid UTF-8, a byte order mark, and anything after the value.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

MAX_INTEGER: Final = 2**53
MAX_DEPTH: Final = 8
_DIGITS: Final = 17  # as many characters as -2**53 has


class OutOfRangeError(ValueError):
    """A number that is valid JSON and that not every reader can hold."""


def strict_loads(raw: bytes) -> Any:
    """The value of the JSON text `raw`. Raises ValueError for what this module refuses, and nothing else."""
    text = raw.decode()
    # Brackets in text count as well, so this is an upper bound of the depth, and most records need no walk.
    if text.count("{") + text.count("[") > MAX_DEPTH or "\\u" in text:
        try:
            _check_depth_and_text(json.loads(text))  # without the checks below, which take their time for each object
        except RecursionError:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    return _DECODER.decode(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:64]!r} occurs twice in an object")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS or abs(value := int(text)) > MAX_INTEGER:
        raise OutOfRangeError(f"the integer {text[:32]} lies beyond +-2**53")
    return value


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise OutOfRangeError(f"the number {text[:32]} is too large")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _check_depth_and_text(value: Any) -> None:
    layer, depth = [value], 0
    while layer:
        inner: list[Any] = []
        for held in layer:
            if isinstance(held, str):
                _check_text(held)
            elif isinstance(held, list | dict):
                if depth == MAX_DEPTH:
                    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
                inner.extend(held)
                if isinstance(held, dict):
                    inner.extend(held.values())
        layer, depth = inner, depth + 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("text holds half of a surrogate pair, which is no character") from None


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant)
