"""Play many worlds on every core: `make simulate SEEDS=10000`; or one, and tell it: `make simulate SEED=7`."""

from __future__ import annotations

import argparse
import os
import sys
import time
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


def main() -> int:
    """Exit status 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="play this one, and tell what happens")
    parser.add_argument("--seeds", type=int, default=1_000, help="play so many")
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    if asked.seed is not None:
        outcome = simulate(asked.seed)
        print(outcome.told())
        print(", ".join(f"{name} {number:,}" for name, number in sorted(outcome.counts.items())))
        return 1 if outcome.differences else 0
    began = time.monotonic()
    played, failed, counts = 0, 0, Counter[str]()
    for number, found, wrong in play_all(range(asked.first, asked.first + asked.seeds)):
        played, failed, counts = played + number, failed + len(wrong), counts + found
        for outcome in wrong:
            print(outcome.told(), flush=True)
        if played % 1_000 == 0:
            print(f"{played:,} seeds after {time.monotonic() - began:.0f} s, {failed} with differences", flush=True)
    faults = {name: number for name, number in counts.items() if name.startswith("fault: ")}
    rest = {name: number for name, number in counts.items() if name not in faults}
    print(f"faults: {', '.join(f'{name[7:]} {number:,}' for name, number in sorted(faults.items()))}")
    print(f"compared: {', '.join(f'{name} {number:,}' for name, number in sorted(rest.items()))}")
    print(f"{played:,} seeds in {time.monotonic() - began:.1f} s, {failed} with differences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
