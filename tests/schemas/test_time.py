"""Times and durations, in both directions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.time import MAX_DURATION, MAX_TIMESTAMP, MICROS, TimestampError, duration_text, to_duration, to_micros, to_rfc3339

FIRST, LAST = datetime.fromisoformat("1971-01-01"), datetime.fromisoformat("9998-01-01")


@given(st.integers(0, MAX_TIMESTAMP))
def test_times_survive_their_text(micros: int) -> None:
    assert to_micros(to_rfc3339(micros)) == micros
    assert to_micros(micros) == micros


@given(st.datetimes(FIRST, LAST, timezones=st.timezones()))
def test_times_are_those_of_datetime(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is None or offset.total_seconds() % 60:
        return
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert to_micros(moment.isoformat()) == (since.days * 86_400 + since.seconds) * MICROS + since.microseconds


def test_text_has_six_decimals() -> None:
    assert to_rfc3339(1_795_394_590_000_000) == "2026-11-23T00:43:10.000000Z"
    assert to_rfc3339(MAX_TIMESTAMP) == "9999-12-31T23:59:59.999999Z"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "a time is integer microseconds"),
        (1.0, "a time is integer microseconds"),
        (None, "a time is integer microseconds"),
        ("", "a time is integer microseconds"),
        ("2026-11-23T00:43:10", "RFC 3339 text with a zone"),
        ("2026-11-23T00:43:1٣Z", "RFC 3339 text with a zone"),
        ("2026-11-23T00:43:10.1٣Z", "RFC 3339 text with a zone"),
        ("2026-02-30T00:00:00Z", "'2026-02-30T00:00:00Z' is no valid time: day is out of range"),
        ("2026-11-23T00:43:10+24:00", "is no valid time"),
        (-1, "between 1970 and 9999; is it given in microseconds"),
        (MAX_TIMESTAMP + 1, "between 1970 and 9999"),
        ("1969-12-31T23:59:59.9Z", "between 1970 and 9999"),
    ],
)
def test_what_is_no_time(value: Any, message: str) -> None:
    with pytest.raises(TimestampError, match=message):
        to_micros(value)


@given(st.integers(0, MAX_DURATION // 1000).map(lambda millis: millis * 1000))
def test_durations_survive_their_text(micros: int) -> None:
    assert to_duration(duration_text(micros)) == micros


def test_durations() -> None:
    texts = {
        "500ms": 500_000,
        "30s": 30 * MICROS,
        "1h30m": 5_400 * MICROS,
        "14d": 14 * 86_400 * MICROS,
        "0s": 0,
        "90s": 90 * MICROS,
    }
    assert {text: to_duration(text) for text in texts} == texts
    assert to_duration(7) == 7
    assert [duration_text(90 * MICROS), duration_text(0), duration_text(86_400_001_000)] == ["1m30s", "0s", "1d1ms"]


@pytest.mark.parametrize(
    "value", ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "5us", "1h 30m", "٣s", "5s!", -1, True, 1.5, None, "9" * 16 + "s"]
)
def test_what_is_no_duration(value: Any) -> None:
    with pytest.raises(ValueError, match="is no duration; write it like '500ms', '30s', '10m', '1h30m' or '14d'"):
        to_duration(value)


@pytest.mark.parametrize("value", ["3651d", "999999999999999d", MAX_DURATION + 1])
def test_durations_are_bounded(value: Any) -> None:
    assert to_duration("3650d") == MAX_DURATION
    with pytest.raises(ValueError, match="a duration is at most 3650d"):
        to_duration(value)
