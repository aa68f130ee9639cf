"""A server that was there has fallen silent, heartbeats included: it is dead, cut off, or was taken down."""

from schemas.rule import Rule, absence, event

server_absent = Rule(
    name="server-absent",
    # What clients and probes say about a server is no sign of its life.
    condition=absence(("tenant", "service"), "90s", every="15s", select=~event.side.in_("client", "probe")),
    severity="critical",
    cooldown="15m",
    channels=("log", "webhook"),
    runbook="docs/rules/server-absent.md",
)
