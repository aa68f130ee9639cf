"""Numbers in units of 10**-9."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import MAX_NUMBER
from schemas.number import SCALE, exact_fixed, to_fixed


@given(st.integers(-(10**15), 10**15))
def test_decimals_are_exact(units: int) -> None:
    assert to_fixed(units / SCALE) == exact_fixed(units / SCALE) == units


@given(st.integers(-MAX_NUMBER, MAX_NUMBER))
def test_integers_are_exact(value: int) -> None:
    assert to_fixed(value) == to_fixed(float(value)) == exact_fixed(float(value)) == value * SCALE


@given(st.floats(-MAX_NUMBER, MAX_NUMBER))
def test_the_error_is_half_a_unit(value: float) -> None:
    assert abs(to_fixed(value) - Fraction(value) * SCALE) <= Fraction(1, 2) + Fraction(1, 10**6)


@given(st.floats(-MAX_NUMBER, MAX_NUMBER), st.floats(-MAX_NUMBER, MAX_NUMBER))
def test_order_is_kept(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert to_fixed(low) <= to_fixed(high)


def test_a_rule_compares_equal_with_the_number_it_names() -> None:
    # Written with 8 decimals, but the double nearest to it lies a unit above.
    assert exact_fixed(123456789.12345679) == to_fixed(123456789.12345679)


@pytest.mark.parametrize("value", [1e-10, 0.1234567891, 5e-324])
def test_too_many_decimals(value: float) -> None:
    with pytest.raises(ValueError, match="has more than 9 decimal places, and numbers are compared to 9"):
        exact_fixed(value)
