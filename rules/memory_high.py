"""An instance of a server holds more than 1 GiB and does not let go of it: leaks end in the OOM killer."""

from schemas.rule import Rule, below, metric_threshold

memory_high = Rule(
    name="memory-high",
    condition=metric_threshold("rss_bytes", "above", 1024 * 1024 * 1024, "5m", at_least=5, by=("tenant", "service", "instance")),
    severity="warning",
    recover=below(900 * 1024 * 1024),
    hold_for="2m",
    keep_firing_for="5m",
    cooldown="1h",
    channels=("log", "webhook"),
    summary="{service} {instance} holds {value:,.0f} bytes of memory on average over {over}",
    unit="bytes",
    runbook="docs/rules/memory-high.md",
)
