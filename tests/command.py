"""The command line as a process of its own, whether or not the project is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TOCSIN: Final = (sys.executable, "-c", "from streams.cli import main; main()")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with `settings` and no other TOCSIN_ variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")} | dict(settings)


def tocsin(settings: Mapping[str, str], *arguments: str, within: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `tocsin` with `arguments` to its end; output is captured as text."""
    return subprocess.run(
        [*TOCSIN, *arguments], cwd=ROOT, env=environment(settings), capture_output=True, text=True, timeout=within, check=False
    )
