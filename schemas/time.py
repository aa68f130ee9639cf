"""Times and durations as integer microseconds, and the text forms that people write and read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

MICROS: Final = 1_000_000
MAX_DURATION: Final = 3_650 * 86_400 * MICROS
MAX_TIMESTAMP: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999
MIN_EVENT_TIME: Final = 946_684_800_000_000
"""2000-01-01. No event is older: what says so is given in seconds or milliseconds, and windows reach back before it."""
_UNITS: Final = {"ms": 1_000, "s": MICROS, "m": 60 * MICROS, "h": 3_600 * MICROS, "d": 86_400 * MICROS}
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DURATION: Final = re.compile(r"(\d{1,15})(ms|s|m|h|d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TimestampError(ValueError):
    """A timestamp that is neither integer microseconds since the epoch nor RFC 3339 text."""


def to_micros(value: Any) -> int:
    """Microseconds since the epoch of `value`: an int (taken as it is) or RFC 3339 text with a zone.

    Raises TimestampError for anything else, and for times before the epoch or after the year 9999.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        micros = value
    elif isinstance(value, str) and len(value) <= 40 and (match := _RFC3339.fullmatch(value)):
        date, clock, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if zone in 'Zz' else zone}")
            since = moment - _EPOCH
        except (ValueError, OverflowError) as error:
            raise TimestampError(f"'{value}' is no valid time: {error}") from None
        micros = since // timedelta(microseconds=1) + int((fraction or "0").ljust(9, "0")[:6])
    else:
        raise TimestampError("a time is integer microseconds since the epoch or RFC 3339 text with a zone")
    if not 0 <= micros <= MAX_TIMESTAMP:
        raise TimestampError("a time lies between 1970 and 9999; is it given in microseconds?")
    return micros


def to_event_time(value: Any) -> int:
    """`to_micros` for the time of an event, which also lies after 1999. Raises TimestampError."""
    micros = to_micros(value)
    if micros < MIN_EVENT_TIME:
        raise TimestampError("the time of an event lies after 1999; is it given in microseconds?")
    return micros


def to_rfc3339(micros: int) -> str:
    """`micros` since the epoch as RFC 3339 in UTC with six decimals, e.g. 2026-11-23T00:43:10.000000Z."""
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def to_duration(value: Any) -> int:
    """Microseconds of a duration such as '500ms', '30s', '10m', '1h30m' or '14d'. An int is taken as microseconds.

    Raises ValueError for anything else, and beyond 3650 days.
    """
    micros = -1
    if isinstance(value, int) and not isinstance(value, bool):
        micros = value
    elif isinstance(value, str) and value:
        parts = _DURATION.findall(value)
        if "".join(number + unit for number, unit in parts) == value:
            micros = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if micros < 0:
        raise ValueError(f"{value!r} is no duration; write it like '500ms', '30s', '10m', '1h30m' or '14d'")
    if micros > MAX_DURATION:
        raise ValueError("a duration is at most 3650d")
    return micros


def duration_text(micros: int) -> str:
    """The shortest text that `to_duration` turns back into `micros` (whole milliseconds)."""
    parts = []
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        number, micros = divmod(micros, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[int, BeforeValidator(to_duration)]
Moment = Annotated[int, BeforeValidator(to_micros)]
