"""A rule that keeps what it counts for long, and never fires."""

from schemas.rule import Rule, above, count

calls = Rule(name="calls", measure=count(), over="10m", every="10s", warning=above(100_000), summary="{value} calls")
