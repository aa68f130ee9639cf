"""The mean duration of a tool exceeds 0.25 s."""

from schemas.rule import Rule, below, event, metric_threshold

slow_tool = Rule(
    name="slow-tool",
    condition=metric_threshold(
        "dur_us", "above", 250_000, "5s", every="1s", at_least=5, by=("tenant", "service", "tool"),
        select=event.method == "tools/call",
    ),
    severity="warning",
    recover=below(150_000),
    cooldown="10s",
    summary="{tool} on '{service}' takes {value:,.0f} µs on average",
)  # fmt: skip
