"""More than three calls without a token within ten seconds."""

from schemas.rule import Rule, security_violation

calls_without_token = Rule(
    name="calls-without-token",
    condition=security_violation("missing_token", 3, "5s", every="1s"),
    severity="critical",
    cooldown="10s",
)
