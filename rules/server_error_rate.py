"""A server fails its callers: protocol errors, timeouts and broken connections, whatever they asked for.

Failures of tools are left to tool-error-rate, so that one broken tool makes one alert.
"""

from schemas.rule import Rule, below, error_rate

server_error_rate = Rule(
    name="server-error-rate",
    condition=error_rate("*", 0.05, "5m", errors=("rpc_error", "timeout", "transport_error")),
    severity="high",
    recover=below(0.03),
    keep_firing_for="2m",
    cooldown="15m",
    channels=("log", "webhook"),
    runbook="docs/rules/server-error-rate.md",
)
