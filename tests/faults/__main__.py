"""Every fault in its long form, one after another, as a table: `make faults SEED=1 ARGS="--only disk"`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import pkgutil
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from tests.faults import scenarios
from tests.faults.row import Row
from tests.faults.stage import Servers


def modules() -> dict[str, ModuleType]:
    """The scenarios by the names of their modules."""
    names = sorted(found.name for found in pkgutil.iter_modules(scenarios.__path__))
    return {name: importlib.import_module(f"{scenarios.__name__}.{name}") for name in names}


def markdown(rows: Sequence[Row]) -> str:
    """The table as a document holds it."""
    lines = ["| fault | injected | compared with the oracle | differences |", "|---|---|---|---|"]
    lines += [f"| {row.fault} | {row.injected} | {row.compared} | {len(row.differences)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Exit status 0 if no scenario found a difference."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000), help="of the load and of the faults")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=sorted(modules()), help="play this scenario (repeatable)"
    )
    parser.add_argument("--short", action="store_true", help="the form that the tests play")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to FILE, too, for the documents")
    options = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that brokers are away is meant here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server outlives the run
    console = Console(width=180 if not sys.stdout.isatty() else None)
    chosen = {name: module for name, module in modules().items() if not options.only or name in options.only}
    console.print(f"seed {options.seed}, {len(chosen)} kinds of fault; again: make faults SEED={options.seed}")
    table = Table("fault", "injected", "compared", "differences", "seconds", title=f"seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="tocsin-faults-"))
    servers = Servers(folder)
    rows: list[Row] = []
    failed = []
    began = time.monotonic()
    for name, module in chosen.items():
        started = time.monotonic()
        try:
            row: Row = asyncio.run(module.run(servers, options.seed, folder / name, long=not options.short))
        except Exception:  # noqa: BLE001 - a scenario that cannot be played must not hide the others
            row = Row(module.FAULT, "", "", (f"the scenario failed:\n{traceback.format_exc()}",))
        rows.append(row)
        seconds = time.monotonic() - started
        console.print(f"  {name}: {len(row.differences)} differences, {seconds:.0f} s")
        table.add_row(row.fault, row.injected, row.compared, str(len(row.differences)), f"{seconds:.0f}")
        for difference in row.differences:
            console.print(f"    {difference}", markup=False)
        if row.differences:
            failed.append(name)
    console.print(table)
    if options.markdown:
        options.markdown.write_text(markdown(rows), encoding="utf-8")
    seconds = time.monotonic() - began
    console.print(f"{len(chosen) - len(failed)} of {len(chosen)} without a difference, {seconds:.0f} s, seed {options.seed}")
    if failed:
        console.print(f"with differences: {', '.join(failed)}; logs in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
