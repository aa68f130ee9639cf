"""What fuzzing begins with beside what was kept: one of everything that is right, and of much that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

from schemas.control import Forward, RulesetRecord, Tick
from schemas.rule import Rule, Ruleset, above, absence, count, error_rate, event, mean, metric_threshold, performance_regression
from streams.settings import Settings
from tests.fuzz.targets import PART, RECORD
from tests.schemas.corpus import BAD, GOOD

_RULES = (
    Rule(name="failing", condition=error_rate("*", 0.5, "2s", every="1s", errors=("tool_error",), at_least=2)),
    Rule(name="silent", condition=absence(("tenant", "service"), "2s", every="1s")),
    Rule(name="slower", condition=performance_regression("dur_us", 1.5, "6s", current="2s", every="1s")),
    Rule(name="hot", condition=metric_threshold("temperature", "above", 3.5, "2s", every="1s")),
    Rule(
        name="busy", select=(event.tool == "read") & ~(event.attributes["x"].in_(1, "1", True)), measure=mean("dur_us"),
        over="2s", every="1s", warning=above(1, at_least=2), critical=above(3), summary="{value:g} on {service}",
    ),
    Rule(name="any", measure=count(), over="2s", every="1s", warning=above(1), summary="x", annotations={"a": "b"}),
)  # fmt: skip


def seeds(target: str) -> Iterator[bytes]:
    """Inputs of a target."""
    match target:
        case "decoder" | "dead_letters":
            controls = [
                each.model_dump_json().encode()
                for each in (Tick(), RulesetRecord(id="a", seq=1), Forward(partition=0, offset=1, index=0))
            ]
            values = [*GOOD.values(), *(value for value, _ in BAD.values())]
            for number, value in enumerate(values):
                yield b"\0" + value
                yield b"%c" % (number % 3) + value + RECORD + value + PART + controls[number % 3]
        case "ruleset":
            found = Ruleset(rules=_RULES[:2])
            manifest = {"id": found.id, "rules": {rule.name: rule.revision for rule in found.rules}}
            yield _entry(f"ruleset/{found.id}", manifest)
            yield _entry("deploy/1/u", {"seq": 1, "id": found.id, "based_on": None}) + RECORD + _entry("deployed/1", {"seq": 1})
            yield RECORD.join(
                [
                    *(_entry(f"rule/{rule.revision}", rule.document()) for rule in found.rules),
                    _entry(f"ruleset/{found.id}", manifest),
                    _entry("deploy/1/u", {"seq": 1, "id": found.id, "based_on": None}),
                ]
            )
        case "rule":
            for rule in _RULES:
                yield json.dumps(rule.document()).encode()
        case "expression":
            for rule in _RULES:
                yield rule.select.model_dump_json().encode()
            yield (event.dur_us > 1).model_dump_json().encode()
            yield (event.attributes["x"].exists() | (event.weight != 2)).model_dump_json().encode()
        case "settings":
            defaults = Settings()
            yield "\n".join(f"{name.upper()}={getattr(defaults, name)}" for name in Settings.__dataclass_fields__).encode()
            yield b"REDIS_URL=redis://user:secret@host:6379/0\nCONTROL_KEY=k\nBOOTSTRAP_SERVERS=[::1]:9092,localhost:1"
            yield b"KAFKA_SECURITY_PROTOCOL=SASL_SSL\nKAFKA_USERNAME=u\nKAFKA_PASSWORD=p\nKAFKA_PASSWORD_FILE=/dev/null"
            yield b"SESSION_TIMEOUT=45\nMETRICS_PORT=0\nFENCING=off"


def _entry(key: str, document: object) -> bytes:
    return key.encode() + PART + json.dumps(document).encode()
