"""Rules that fire again and again within their cooldowns: one outlasts a run, one ends while what it held still fires."""

from schemas.rule import Rule, above, below, count, error_rate, event, mean

again = Rule(
    name="again",
    select=event.outcome == "tool_error",
    by=("tenant", "service", "tool"),
    measure=count(),
    over="1s",
    every="500ms",
    warning=above(1),
    cooldown="10m",
    summary="{value:g} failures of {tool} of {service}",
)
released = Rule(
    name="released",
    condition=error_rate("*", 0.3, "1s", every="500ms", errors=("tool_error",), at_least=3),
    recover=below(0.1),
    cooldown="2s",
)
rising = Rule(
    name="rising",
    select=event.kind == "operation",
    measure=mean("dur_us"),
    over="1s",
    every="500ms",
    by=("tenant", "service"),
    warning=above(15_000, at_least=2),
    critical=above(60_000, at_least=3),
    cooldown="10m",
    summary="{service} takes {value:g} us",
)
