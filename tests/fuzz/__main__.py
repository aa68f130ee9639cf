"""Fuzz every target, three at once for two cores: `make fuzz SECONDS=60`. What reaches new code is kept."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

CORPUS: Final = Path(__file__).parent / "corpus"
MAX_SIZE: Final = 1_000
"""Bytes of what is kept."""
MAX_FILES: Final = 180
_OPTIONS: Final = ("-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a target fared: what it executed, how many files are kept, and what it printed where it failed."""

    name: str
    executions: int
    kept: int
    failure: str


def fuzz(name: str, seconds: int, *, keep: bool) -> Ran:
    """Run a target from what was kept of it; with `keep` add what reached new code, as long as there is room."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tocsin-fuzz-") as folder:
        grown, begun = Path(folder, "grown"), Path(folder, "begun")
        grown.mkdir()
        begun.mkdir()
        for number, data in enumerate(seeds(name)):
            (begun / str(number)).write_bytes(data)
        done = _run(name, f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", str(grown), str(kept), str(begun))
        said = done.stdout + done.stderr
        executions = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
        failure = ""
        if done.returncode:
            inputs = [path.read_bytes() for path in Path(folder).iterdir() if path.is_file()]
            failure = f"{said[-4_000:]}\n{name} fails on {inputs}"
        elif keep:
            _keep(kept, grown)
        return Ran(name, int(executions.group(1)) if executions else 0, len(list(kept.iterdir())), failure)


def _run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", name, *_OPTIONS, *options]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _keep(kept: Path, grown: Path) -> None:
    """Add what reached new code, named after what it holds. Where that is too much, every size keeps its share."""
    paths = [*kept.iterdir(), *(path for path in grown.iterdir() if path.stat().st_size <= MAX_SIZE)]
    found = sorted({path.read_bytes() for path in paths}, key=lambda data: (len(data), data))
    step = max(1, math.ceil(len(found) / MAX_FILES))
    for path in kept.iterdir():
        path.unlink()
    for data in found[::step]:
        (kept / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main() -> int:
    """Exit status 1 where any target fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--only", choices=sorted(TARGETS), help="run this target alone")
    parser.add_argument("--discard", action="store_true", help="leave the kept inputs as they are")
    asked = parser.parse_args()
    names = [asked.only] if asked.only else list(TARGETS)
    failed = 0
    with ThreadPoolExecutor(math.ceil((os.cpu_count() or 2) * 1.5)) as pool:
        for ran in pool.map(lambda name: fuzz(name, asked.seconds, keep=not asked.discard), names):
            failed += bool(ran.failure)
            verdict = "FAILED" if ran.failure else "ok"
            print(f"{ran.name:<14} {verdict:<7} {ran.executions:>10,} executions {ran.kept:>5} inputs kept", flush=True)
            if ran.failure:
                print(ran.failure, flush=True)
    print(f"{len(names) - failed} of {len(names)} targets without a foreign error, {asked.seconds} s each")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
