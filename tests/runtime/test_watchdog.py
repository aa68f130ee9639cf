from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest

from streams.runtime.watchdog import EVERY, Pulse, Standing, Watchdog


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.watchdog = Watchdog(lambda: self.now, limit=60, every=60)

    def after(self, seconds: float, **standings: tuple[object, int]) -> str | None:
        self.now += seconds
        return self.watchdog.look({name: Standing(*standing) for name, standing in standings.items()})


def test_lag_without_progress_is_stuck_after_the_limit() -> None:
    bench = Bench()
    assert bench.after(0, a=(7, 3)) is None
    assert bench.after(59, a=(7, 3)) is None
    assert bench.after(1, a=(7, 4)) == "a is 4 records behind and has made no progress for 60 s"


def test_progress_or_no_lag_starts_the_count_anew() -> None:
    bench = Bench()
    bench.after(0, a=(7, 3), b=(7, 3))
    assert bench.after(59, a=(8, 3), b=(7, 0)) is None
    assert bench.after(59, a=(8, 3), b=(7, 3)) is None
    assert bench.after(1, a=(9, 3), b=(7, 3)) is not None


def test_an_idle_partition_is_never_stuck() -> None:
    bench = Bench()
    for _ in range(10):
        assert bench.after(50, a=(7, 0)) is None


def test_a_partition_that_went_away_is_forgotten() -> None:
    bench = Bench()
    bench.after(0, a=(7, 3))
    bench.after(30)
    assert bench.after(40, a=(7, 3)) is None
    assert bench.after(59, a=(7, 3)) is None
    assert bench.after(1, a=(7, 3)) is not None


def test_the_time_for_which_a_process_was_suspended_does_not_count() -> None:
    now = 0.0
    watchdog = Watchdog(lambda: now, limit=60)
    standing = {"a": Standing(7, 3)}
    assert watchdog.look(standing) is None
    now += 3_600
    assert watchdog.look(standing) is None
    for _ in range(9):
        now += EVERY
        assert watchdog.look(standing) is None
    now += EVERY
    assert watchdog.look(standing) is not None


async def test_a_loop_that_makes_no_turn_ends_the_process_with_its_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    ended: list[int] = []
    pulse = asyncio.ensure_future(Pulse(limit=0.2, beat=0.02, end=ended.append).run())
    await asyncio.sleep(0.5)
    assert not ended
    time.sleep(0.8)  # noqa: ASYNC251 - the loop is to be stuck
    assert ended == [1]
    said = capfd.readouterr().err
    assert "its event loop made no turn for 0 s" in said
    assert "test_a_loop_that_makes_no_turn_ends_the_process_with_its_stacks" in said
    pulse.cancel()


def test_a_stuck_process_ends_with_status_one() -> None:
    program = """
import asyncio, time
from streams.runtime.watchdog import Pulse

async def main():
    pulse = asyncio.create_task(Pulse(limit=0.2, beat=0.02).run())
    await asyncio.sleep(0.1)
    time.sleep(30)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "in main" in done.stderr
