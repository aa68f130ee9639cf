"""Numbers as integers of 10**-9, so that sums and comparisons are exact and need no order."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

SCALE: Final = 10**9


def to_fixed(value: float) -> int:
    """`value` in units of 10**-9, rounded half to even. |value| <= 2**53."""
    whole = int(value)
    return whole * SCALE + round((value - whole) * 1e9)


def exact_fixed(value: float) -> int:
    """`value` as `to_fixed` takes the numbers of events; raises ValueError where it has more than 9 decimal places."""
    scaled = Decimal(repr(value)).scaleb(9)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{value!r} has more than 9 decimal places, and numbers are compared to 9")
    return to_fixed(value)
