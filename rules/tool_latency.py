"""Calls of one tool take longer than agents wait for: five seconds on average."""

from schemas.rule import Rule, below, event, metric_threshold

tool_latency = Rule(
    name="tool-latency",
    condition=metric_threshold(
        "dur_us",
        "above",
        5_000_000,
        "5m",
        at_least=20,
        by=("tenant", "service", "tool"),
        # A call that came back to ask the user something waited for a person.
        select=(event.kind == "operation") & (event.method == "tools/call") & ~(event.rounds > 0),
    ),
    severity="warning",
    recover=below(4_000_000),
    keep_firing_for="2m",
    cooldown="30m",
    channels=("log", "webhook"),
    summary="{tool} on {service} takes {value:,.0f} µs on average",
    unit="µs",
    runbook="docs/rules/tool-latency.md",
)
