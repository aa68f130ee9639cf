"""Many worlds, on every core."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from tests.simulation.simulate import Outcome, simulate

SHARE: Final = 50
"""Seeds that a process plays before it reports."""


def play(seeds: Iterable[int]) -> tuple[Counter[str], list[Outcome]]:
    """What happened in the worlds of `seeds`, and those in which something differs."""
    counts: Counter[str] = Counter()
    wrong = []
    for seed in seeds:
        outcome = simulate(seed)
        counts += outcome.counts
        if outcome.differences:
            wrong.append(outcome)
    return counts, wrong


def play_all(seeds: range) -> Iterator[tuple[int, Counter[str], list[Outcome]]]:
    """The same on every core; yields, share by share, how many were played."""
    shares = [seeds[at : at + SHARE] for at in range(0, len(seeds), SHARE)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for share, (counts, wrong) in zip(shares, pool.map(play, shares), strict=True):
            yield len(share), counts, wrong
