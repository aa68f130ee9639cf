"""Requests with a foreign Origin or Host reach a server: a web page in somebody's browser is trying to speak to it."""

from schemas.rule import Rule, above, below, count, event

dns_rebinding = Rule(
    name="dns-rebinding",
    select=(event.kind == "security") & (event.result == "fail") & event.reason.in_("origin", "host"),
    measure=count(),
    over="10m",
    every="1m",
    high=above(2),
    recover=below(1),
    cooldown="30m",
    channels=("log", "webhook"),
    summary="{value:g} requests with a foreign Origin or Host reached {service} within {over}",
    runbook="docs/rules/dns-rebinding.md",
)
