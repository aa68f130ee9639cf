"""Rules with short windows, so that a run of seconds makes episodes of every kind."""

from schemas.rule import Rule, above, absence, below, count, error_rate, event, mean, performance_regression

failing = Rule(
    name="failing",
    condition=error_rate("*", 0.4, "3s", every="500ms", errors=("tool_error",), at_least=5),
    recover=below(0.2),
    cooldown="0s",
)
slow = Rule(
    name="slow",
    select=event.kind == "operation",
    measure=mean("dur_us"),
    over="2s",
    every="500ms",
    by=("tenant", "service", "tool"),
    warning=above(20_000, at_least=3),
    critical=above(60_000, at_least=3),
    unit="us",
    cooldown="0s",
    summary="{tool} of {service} takes {value:g} us",
)
busy = Rule(
    name="busy",
    select=event.outcome == "tool_error",
    measure=count(),
    over="2s",
    every="1s",
    warning=above(8),
    cooldown="3s",
    summary="{value:g} failures of {service}",
)
slower = Rule(
    name="slower",
    cooldown="2s",
    condition=performance_regression("dur_us", 1.5, "6s", current="2s", every="1s", at_least=3, by=("tenant", "service")),
)
silent = Rule(name="silent", condition=absence(("tenant", "service"), "4s", every="1s"), cooldown="0s")
