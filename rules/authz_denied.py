"""One user is refused again and again what the token does not allow: probing for privileges, or a client stuck in step-up."""

from schemas.rule import Rule, below, security_violation

authz_denied = Rule(
    name="authz-denied",
    condition=security_violation("authz", 5, "10m", by=("tenant", "service", "principal")),
    severity="high",
    recover=below(2),
    cooldown="30m",
    channels=("log", "webhook"),
    summary="{principal} was denied {value:g} times on {service} within {over}",
    runbook="docs/rules/authz-denied.md",
)
