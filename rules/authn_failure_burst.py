"""Many requests to a server come without a valid token: an expired token of a fleet, a login loop, or somebody guessing."""

from schemas.rule import Rule, below, security_violation

authn_failure_burst = Rule(
    name="authn-failure-burst",
    condition=security_violation("authn", 10, "5m"),
    severity="high",
    recover=below(3),
    cooldown="30m",
    channels=("log", "webhook"),
    runbook="docs/rules/authn-failure-burst.md",
)
