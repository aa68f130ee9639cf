"""Calls of one tool take much longer than in the day before, though perhaps nobody has set a limit for it."""

from schemas.rule import Rule, below, event, performance_regression

latency_regression = Rule(
    name="latency-regression",
    condition=performance_regression(
        "dur_us",
        0.5,
        "1d",
        current="15m",
        every="5m",
        at_least=50,
        by=("tenant", "service", "tool"),
        # Failures are faster or slower than work; a call that came back to ask the user something waited for a person.
        select=(event.kind == "operation") & (event.method == "tools/call") & (event.outcome == "ok") & ~(event.rounds > 0),
    ),
    severity="warning",
    recover=below(0.25),
    keep_firing_for="10m",
    cooldown="1h",
    channels=("log", "webhook"),
    summary="{tool} on {service} takes {value:.0%} longer than in the day before",
    runbook="docs/rules/latency-regression.md",
)
