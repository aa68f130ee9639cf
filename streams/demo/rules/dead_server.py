"""A server that was alive sends nothing, not even a heartbeat, for six seconds."""

from schemas.rule import Rule, absence

dead_server = Rule(name="dead-server", condition=absence(for_="6s", every="1s"), severity="critical", cooldown="10s")
