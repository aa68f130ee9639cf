"""`tocsin schema`: the public contracts as JSON Schema."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

import click
from pydantic import BaseModel

from schemas.alert import VERSION, Alert, Transition
from schemas.event import Event
from schemas.rule import Rule
from streams.commands.console import examples

_Mode = Literal["validation", "serialization"]
CONTRACTS: Final[dict[str, tuple[type[BaseModel], str, _Mode]]] = {
    "event": (Event, "An event on mcp.events; a record holds one, or an array of them", "validation"),
    "alert": (Alert, "A record of mcp.alerts and mcp.alerts.state", "serialization"),
    "transition": (Transition, "A record of mcp.transitions", "serialization"),
    "rule": (Rule, "A rule on mcp.rules, key rule/<revision>", "serialization"),
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema, draft 2020-12, of a contract."""
    model, title, mode = CONTRACTS[name]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:tocsin:{name}:{VERSION}"}
    return head | model.model_json_schema(mode=mode) | {"title": title}


@click.command("schema", epilog=examples("tocsin schema event", "tocsin schema alert > alert.schema.json"))
@click.argument("name", type=click.Choice(list(CONTRACTS)))
def command(name: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a public contract.

    \b
    event       what producers write to mcp.events
    alert       what mcp.alerts and mcp.alerts.state hold
    transition  what mcp.transitions holds: every decision
    rule        a rule as it is stored on mcp.rules
    """  # noqa: D301 - click reads the escape
    click.echo(json.dumps(json_schema(name), indent=2))
