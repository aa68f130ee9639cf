"""Stream time, slices and windows: integer microseconds, half-open intervals."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from streams.kernel.columns import Int

MAX_SKEW: Final = 10_000_000
IDLE_GRACE: Final = 3_000_000


def stream_times(ts: Int, append_time: Int, before: int) -> Int:
    """Stream time after each of n events, int64[n], given the one before them."""
    return np.maximum.accumulate(np.maximum(np.minimum(ts, append_time + MAX_SKEW), before))


def tick_time(append_time: int) -> int:
    """The stream time that a tick calls for."""
    return append_time - IDLE_GRACE


class Reach(NamedTuple):
    """The slices that a rule looks at while stream time lies in slice `current`: window [first, current] and, before it, the
    baseline [baseline_first, first)."""

    baseline_first: int
    first: int
    current: int


def reach_at(current: int, span: int, baseline_span: int) -> Reach:
    """The reach of a window of `span` slices and a baseline of `baseline_span` at slice `current`."""
    first = current + 1 - span
    return Reach(first - baseline_span, first, current)
