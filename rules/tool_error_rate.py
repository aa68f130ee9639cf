"""One tool fails in a large share of its calls: the tool or what stands behind it is broken, the server itself answers."""

from schemas.rule import Rule, above, below, event, ratio

tool_error_rate = Rule(
    name="tool-error-rate",
    select=(event.kind == "operation") & (event.method == "tools/call"),
    by=("tenant", "service", "tool"),
    measure=ratio(event.outcome == "tool_error"),
    over="10m",
    every="30s",
    warning=above(0.20, at_least=20),
    critical=above(0.50, at_least=20),
    recover=below(0.15),
    keep_firing_for="2m",
    cooldown="15m",
    channels=("log", "webhook"),
    summary="{tool} on {service} fails in {value:.0%} of calls",
    runbook="docs/rules/tool-error-rate.md",
)
