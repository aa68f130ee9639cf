"""`tocsin run`: the worker."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import click

from streams.commands.console import examples, settings
from streams.settings import Settings, variable
from streams.topics import ENGINE, NOTIFIER


def settings_help() -> str:
    """Every setting, its default and its meaning, one per line."""
    rows = []
    for item in fields(Settings):
        default = f"  [{item.default}]" if item.default else ""
        rows.append(f"  {variable(item.name)}{default}\n      {item.metadata['help']}")
    return "\n".join(["\b", "Settings (environment variables, defaults in brackets):", *rows])


_EXAMPLES: Final = examples(
    "tocsin run",
    "tocsin run --only engine --log-format json",
    "TOCSIN_BOOTSTRAP_SERVERS=kafka-1:9092,kafka-2:9092 TOCSIN_CONTROL_KEY=... tocsin run",
)


@click.command("run", epilog=f"{_EXAMPLES}\n\n{settings_help()}")
@click.option("--only", type=click.Choice([ENGINE, NOTIFIER]), help="Run one of the two; by default both.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="One line per state change."
)
def command(only: str | None, log_format: str) -> None:
    """Run the worker until it is told to end (Ctrl-C, SIGTERM).

    The engine folds mcp.events into windows and decides by the active ruleset; the notifier applies the cooldowns and
    writes mcp.alerts. Start as many workers as you like, up to the number of partitions: they share them.

    \b
    /metrics, /healthz and /readyz are on http://127.0.0.1:9464 (TOCSIN_METRICS_PORT).
    Exit status: 0 ended in order, 1 could not go on (the last line says why), 2 unusable settings.
    """  # noqa: D301 - click reads the escape
    configured = settings(signs=True)
    from streams.runtime import worker  # noqa: PLC0415 - Faust is slow to import, and a wrong setting should not wait for it

    raise SystemExit(worker.run(configured, only=only, log_format=log_format))
