"""Play many worlds on every core: `make simulate SEEDS=10000`; or one, and tell it: `make simulate SEED=7`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.play import play_all
from tests.simulation.simulate import simulate


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
