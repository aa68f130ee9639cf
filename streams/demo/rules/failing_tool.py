"""A tool fails in more than half of its calls."""

from schemas.rule import Rule, above, below, event, ratio

failing_tool = Rule(
    name="failing-tool",
    select=(event.kind == "operation") & (event.method == "tools/call"),
    by=("tenant", "service", "tool"),
    measure=ratio(event.outcome == "tool_error"),
    over="5s",
    every="1s",
    high=above(0.5, at_least=5),
    recover=below(0.2),
    cooldown="10s",
    channels=("log",),
    summary="{tool} on '{service}' fails in {value:.0%} of calls",
)
