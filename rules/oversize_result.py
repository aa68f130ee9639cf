"""A tool returned more than clients accept in one message: they drop the result, or pay for it in tokens."""

from schemas.rule import Rule, above, event, max_of

oversize_result = Rule(
    name="oversize-result",
    select=event.kind == "operation",
    by=("tenant", "service", "tool"),
    measure=max_of("res_bytes"),
    over="5m",
    every="30s",
    warning=above(8 * 1024 * 1024),
    keep_firing_for="5m",
    cooldown="1h",
    channels=("log", "webhook"),
    summary="A result of {tool} on {service} has {value:,.0f} bytes",
    unit="bytes",
    runbook="docs/rules/oversize-result.md",
)
