"""What a scenario reports: one row of the table of faults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of fault, what was injected, what was compared, and every difference, in sentences."""

    fault: str
    injected: str
    compared: str
    differences: tuple[str, ...]
