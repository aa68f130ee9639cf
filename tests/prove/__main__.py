"""Plant each bug in a copy of the project, and see its test fail: `make prove`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.prove.bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("schemas", "streams", "rules", "tests", "hatch_build.py", "pyproject.toml")


def passes(folder: Path, test: str) -> bool:
    """Whether `test` passes in `folder`. Raises RuntimeError where it did not run."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{test} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def plant(folder: Path, bug: Bug) -> str:
    """Edit the copy; returns what the file held before. Raises RuntimeError where the place is not found once."""
    file = folder / bug.file
    before = file.read_text(encoding="utf-8")
    if before.count(bug.old) != 1:
        raise RuntimeError(
            f"{bug.name}: {bug.file} holds {bug.old!r} {before.count(bug.old)} times, so the bug cannot be planted"
        )
    write(folder, bug, before.replace(bug.old, bug.new))
    return before


def write(folder: Path, bug: Bug, text: str) -> None:
    """Make `text` what the file of `bug` holds, also as machine code."""
    (folder / bug.file).write_text(text, encoding="utf-8")
    if bug.file.endswith(".zig"):
        subprocess.run([sys.executable, "hatch_build.py"], cwd=folder, check=True)


def main() -> int:
    """Exit status 0 if every test passes without its bug and fails with it."""
    unproven = 0
    with tempfile.TemporaryDirectory(prefix="tocsin-prove-") as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            if source.is_dir():
                shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / item)
        sound_tests: dict[str, bool] = {}
        for bug in BUGS:
            if bug.test not in sound_tests:
                sound_tests[bug.test] = passes(folder, bug.test)
            sound = sound_tests[bug.test]
            before = plant(folder, bug)
            caught = not passes(folder, bug.test)
            write(folder, bug, before)
            verdict = "caught" if sound and caught else "NOT CAUGHT" if sound else "FAILS WITHOUT THE BUG"
            unproven += verdict != "caught"
            print(f"{verdict:<22} {bug.name:<34} {bug.test}", flush=True)
    print(f"{len(BUGS) - unproven} of {len(BUGS)} planted bugs are caught, each by the test of the guarantee that it breaks")
    return 1 if unproven else 0


if __name__ == "__main__":
    sys.exit(main())
