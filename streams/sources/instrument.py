"""Run an unmodified server module with telemetry: `python -m streams.sources.instrument --service NAME -- MODULE [ARGUMENTS]`.

Every server that the module makes with the official Python SDK gets the middleware. Settings come from the TOCSIN_ variables;
mind that MCP clients hand few variables down to the servers they start.
"""

from __future__ import annotations

import argparse
import functools
import os
import runpy
import signal
import sys
from types import FrameType
from typing import Any

from mcp.server.lowlevel import Server

from streams.settings import SettingsError
from streams.sources.middleware import HEARTBEAT, Telemetry
from streams.sources.outlet import Outlet, source_settings


def instrument(telemetry: Telemetry) -> None:
    """Add the middleware to every SDK server that is made from now on."""
    make = Server.__init__

    @functools.wraps(make)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self.middleware.append(telemetry.middleware)

    Server.__init__ = made  # type: ignore[method-assign]


def leave_on_sigterm() -> None:
    """End by an exception on SIGTERM, through every `finally`: a server that is told to end can say so."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def main() -> None:
    """Instrument, then run the module as if by `python -m`."""
    parser = argparse.ArgumentParser(
        prog="python -m streams.sources.instrument", description="Run an MCP server module with telemetry."
    )
    parser.add_argument("--service", required=True, help="the name of the server in its events")
    parser.add_argument("--tenant", default="default")
    parser.add_argument("--heartbeat", type=float, default=HEARTBEAT, help="seconds between heartbeats")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    said = parser.parse_args()
    try:
        settings = source_settings(os.environ)
    except SettingsError as error:
        parser.error(str(error))
    outlet = Outlet(settings, service=said.service, tenant=said.tenant)
    telemetry = Telemetry(outlet, heartbeat=said.heartbeat)

    instrument(telemetry)
    leave_on_sigterm()
    sys.argv = [said.module, *said.arguments]
    try:
        runpy.run_module(said.module, run_name="__main__", alter_sys=True)
    finally:  # rather than at exit, when Python starts no more threads and so resolves no names
        telemetry.close()
        outlet.close()


if __name__ == "__main__":
    main()
