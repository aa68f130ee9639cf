"""Control records: what tocsin itself writes to the event topic. They are told from events by one header.

    header `tocsin` = {"control": "tick"}
                    = {"control": "ruleset", "id": ..., "seq": ..., "mac": ...}
                    = {"control": "forward", "partition": ..., "offset": ..., "index": ..., "mac": ...}
                    = {"control": "redrive", "offset": ..., "timestamp": ..., "mac": ...}

All but ticks are signed with the control key for the partition they are written to, so that a publisher who may write
events can neither switch rules nor forge an origin.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

HEADER: Final = "tocsin"
_OFFSET: Final = Field(ge=0, lt=2**63)


class _Control(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Tick(_Control):
    """Stands for silence: moves stream time to its append time less the idle grace."""

    control: Literal["tick"] = "tick"


class RulesetRecord(_Control):
    """From this offset on the partition is judged by the ruleset `id`. `seq` rises with every deploy."""

    control: Literal["ruleset"] = "ruleset"
    id: Annotated[str, Field(min_length=1, max_length=64)]
    seq: Annotated[int, Field(ge=1, lt=2**63)]
    mac: str = ""


class Forward(_Control):
    """The record's value is an event that was found on another partition, at this origin."""

    control: Literal["forward"] = "forward"
    partition: Annotated[int, _OFFSET]
    offset: Annotated[int, _OFFSET]
    index: Annotated[int, _OFFSET]
    mac: str = ""


class Redrive(_Control):
    """The record was a dead letter. It stood at this offset of the partition first, appended at `timestamp` (ms)."""

    control: Literal["redrive"] = "redrive"
    offset: Annotated[int, _OFFSET]
    timestamp: Annotated[int, Field(ge=0, lt=2**53)]
    mac: str = ""


Control = Annotated[Tick | RulesetRecord | Forward | Redrive, Field(discriminator="control")]
_Signed = TypeVar("_Signed", RulesetRecord, Forward, Redrive)
_CONTROL: Final[TypeAdapter[Tick | RulesetRecord | Forward | Redrive]] = TypeAdapter(Control)


def parse_control(header: bytes) -> Tick | RulesetRecord | Forward | Redrive:
    """The control record of a header value. Raises ValueError where it is none."""
    return _CONTROL.validate_json(header)


def sign(control: _Signed, key: bytes, *, topic: str, partition: int, value: bytes) -> _Signed:
    """`control` with its MAC under `key`, bound to the place it is written to and to the record's value."""
    return control.model_copy(update={"mac": _mac(control, key, topic, partition, value)})


def is_signed(control: RulesetRecord | Forward | Redrive, key: bytes, *, topic: str, partition: int, value: bytes) -> bool:
    """Whether the MAC of `control` is right for `key` and this place."""
    return hmac.compare_digest(control.mac.encode(), _mac(control, key, topic, partition, value).encode())


def _mac(control: RulesetRecord | Forward | Redrive, key: bytes, topic: str, partition: int, value: bytes) -> str:
    said = control.model_copy(update={"mac": ""}).model_dump_json()
    text = b"\0".join((topic.encode(), str(partition).encode(), said.encode(), value))
    return hmac.new(key, text, hashlib.sha256).hexdigest()
