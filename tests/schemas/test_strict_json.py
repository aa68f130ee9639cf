"""What is refused, and that the message says why. The corpus holds many more."""

from __future__ import annotations

import pytest

from schemas.strict_json import MAX_DEPTH, MAX_INTEGER, OutOfRangeError, strict_loads


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a":1,"a":1}', "the name 'a' occurs twice in an object"),
        (b'{"%s":1,"%s":1}' % (b"n" * 900, b"n" * 900), f"the name '{'n' * 64}' occurs twice"),
        (b"NaN", "NaN is no JSON number"),
        (b"[-Infinity]", "-Infinity is no JSON number"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper than 8 levels"),
        (b"[" * 100_000, "nested deeper than 8 levels"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\ud800":1}', "half of a surrogate pair"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b"\xef\xbb\xbf1", "Expecting value"),
        (b"1 2", "Extra data"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        strict_loads(raw)
    assert not isinstance(raised.value, OutOfRangeError)


@pytest.mark.parametrize("raw", [str(MAX_INTEGER + 1), str(-MAX_INTEGER - 1), "9" * 5000, "[1e999]", '{"a":-1e999}'])
def test_numbers_out_of_range_are_told_apart(raw: str) -> None:
    with pytest.raises(OutOfRangeError, match=r"lies beyond|is too large"):
        strict_loads(raw.encode())


def test_what_is_taken() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert repr(strict_loads(deepest)) == deepest.decode()
    assert strict_loads(b'{"a":[%d,-%d,1.5,"\\ud83e\\udd89",null,true]}' % (MAX_INTEGER, MAX_INTEGER)) == {
        "a": [MAX_INTEGER, -MAX_INTEGER, 1.5, "\N{OWL}", None, True]
    }
    assert strict_loads(b'["[[[[[[[[[[[[", {"{{{{{{{{": "}"}]') == ["[[[[[[[[[[[[", {"{{{{{{{{": "}"}]
