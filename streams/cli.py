"""`tocsin`: the command line. Each command is a file of streams/commands, imported when it is called."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Final

import click

COMMANDS: Final = {
    "topics": "Create the topics, and check those that exist.",
    "check": "Check rule modules.",
    "deploy": "Make the rules of a folder the active ruleset.",
    "run": "Run the worker: the engine and the notifier.",
    "publish": "Publish events (JSON lines) to the event topic.",
    "alerts": "Show what is firing, or follow the alert topic.",
    "dlq": "Look at dead letters, and send them once more.",
    "state": "Verify, rebuild, export and import the state.",
    "schema": "Print the JSON Schema of a public contract.",
    "demo": "See it work, on servers that it starts itself.",
}


class Commands(click.Group):
    """The commands in the order in which they are used; a command is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the signature is click's
        """The command, from its file."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"streams.commands.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a programming error, not input
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the signature is click's
        """One line each, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        click.echo(f"tocsin {importlib.metadata.version('tocsin')}")
    except importlib.metadata.PackageNotFoundError:
        click.echo("tocsin, from a source tree that is not installed")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Print the version.")
def main() -> None:
    """Watch fleets of MCP servers: telemetry in, alerts out.

    \b
    publishers ──▶ mcp.events ──▶ engine (rules over windows) ──▶ mcp.transitions
                                                                        │
    your consumers, log, webhook ◀── mcp.alerts ◀── notifier (cooldown) ◀┘

    \b
    A typical sequence:
      tocsin topics                     once per cluster
      tocsin deploy rules/              whenever rules change; `tocsin check rules/` before
      tocsin run                        one worker or many
      tocsin publish events.jsonl       or any Kafka client, on the topic mcp.events
      tocsin alerts                     what is firing now

    Settings come from the environment (TOCSIN_BOOTSTRAP_SERVERS, ...); `tocsin run --help` lists them all.
    No Kafka at hand? `tocsin demo` brings its own.
    """  # noqa: D301 - click reads the escape


if __name__ == "__main__":
    main()
