"""The event: one observation of an MCP server or client, the only thing producers write.

Three fields are required: `ts`, `kind` and `service`. Every other field has a default, unknown fields are ignored, and a
field has the same type in every kind, so a rule can name it without asking for the kind first. Text is at most 256
characters, integers lie within +-2**53 and numbers are kept to 9 decimal places.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.types import StringConstraints

from schemas.strict_json import MAX_INTEGER, strict_loads
from schemas.time import TimestampError, to_event_time

VERSION: Final = 1
MAX_TEXT: Final = 256
MAX_ATTRIBUTES: Final = 32
MAX_NUMBER: Final = MAX_INTEGER
MAX_WEIGHT: Final = 1_000_000

Kind = Literal["operation", "connection", "protocol", "security", "approval", "inventory", "perf", "health", "audit", "metric"]
Outcome = Literal["ok", "tool_error", "caller_error", "rpc_error", "timeout", "cancelled", "transport_error", "input_required"]
Fault = Literal["none", "caller", "tool", "server", "network"]
Side = Literal["server", "client", "proxy", "probe"]

Text = Annotated[StrictStr, StringConstraints(max_length=MAX_TEXT)]
Name = Annotated[StrictStr, StringConstraints(min_length=1, max_length=MAX_TEXT)]
Integer = Annotated[StrictInt, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Version = Annotated[StrictInt, Field(ge=VERSION, le=VERSION)]
Number = Annotated[StrictFloat, Field(ge=-MAX_NUMBER, le=MAX_NUMBER, allow_inf_nan=False)]
Weight = Annotated[StrictInt, Field(ge=1, le=MAX_WEIGHT)]
Attributes = Annotated[dict[Name, Text | StrictBool | Integer | Number], Field(max_length=MAX_ATTRIBUTES)]


def _timestamp(value: Any) -> int:
    try:
        return to_event_time(value)
    except TimestampError as error:
        raise ValueError(str(error)) from None


Timestamp = Annotated[int, BeforeValidator(_timestamp, json_schema_input_type=StrictInt | StrictStr)]


class Event(BaseModel):
    """One event. Times and durations are integer microseconds, sizes integer bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # What every event has.
    ts: Timestamp = Field(description="Event time, after 1999: integer microseconds since the epoch, or RFC 3339 text.")
    kind: Kind = Field(description="What was observed; decides which of the other fields are filled.")
    service: Name = Field(description="Name of the MCP server, the second half of the partition key.")
    tenant: Name = Field(default="default", description="Who the server belongs to, the first half of the partition key.")
    weight: Weight = Field(default=1, description="How many observations this one stands for (1 / sampling rate).")
    attributes: Attributes = Field(default_factory=dict, description="At most 32 names with text, number or boolean.")

    # Envelope.
    v: Version | None = Field(default=None, description="Major version of this schema; an event of another one is refused.")
    id: Text | None = Field(default=None, description="Identity of the event for people; it is no deduplication key.")
    obs_ts: Integer | None = Field(default=None, description="Time of observation, microseconds.")
    service_ver: Text | None = None
    instance: Text | None = None
    env: Text | None = None
    side: Side | None = Field(default=None, description="Who observed it.")
    src: Text | None = Field(default=None, description="tap, sdk, otlp, gateway or client_log.")
    scope: Text | None = None
    trace_id: Text | None = None
    span_id: Text | None = None
    parent_id: Text | None = None
    conn: Text | None = Field(default=None, description="Connection, as minted by the observer.")
    session: Text | None = Field(default=None, description="Keyed hash of the session, never the session itself.")
    req_id: Text | None = None
    proto: Text | None = Field(default=None, description="Negotiated MCP revision.")
    era: Text | None = Field(default=None, description="legacy or modern.")
    transport: Text | None = Field(default=None, description="pipe, tcp or quic.")
    app_proto: Text | None = None
    client_name: Text | None = Field(default=None, description="Reported by the client itself; untrusted.")
    client_ver: Text | None = None
    principal: Text | None = Field(default=None, description="Keyed hash of the user.")

    # operation
    method: Text | None = None
    dir: Text | None = Field(default=None, description="c2s or s2c.")
    msg: Text | None = Field(default=None, description="request or notification.")
    tool: Text | None = None
    prompt: Text | None = None
    uri_scheme: Text | None = None
    uri_hash: Text | None = None
    unknown_target: StrictBool | None = None
    dur_us: Integer | None = Field(default=None, description="Duration of the operation or connection, microseconds.")
    queue_us: Integer | None = None
    req_bytes: Integer | None = None
    res_bytes: Integer | None = None
    outcome: Outcome | None = Field(default=None, description="How the operation ended.")
    fault: Fault | None = Field(default=None, description="Whose fault it was.")
    error_type: Text | None = None
    rpc_code: Text | None = Field(default=None, description="JSON-RPC error code, as text.")
    http_status: Integer | None = None
    result_type: Text | None = None
    rounds: Integer | None = None
    progress_n: Integer | None = None
    in_flight: Integer | None = None
    args_fp: Text | None = None
    feature: Text | None = None

    # connection, protocol, security, approval, health, audit share words.
    action: Text | None = Field(default=None, description="What happened: open, close, heartbeat, violation, authn, authz, ...")
    reason: Text | None = Field(default=None, description="Why: eof, exit, missing_token, insufficient_scope, ...")
    result: Text | None = Field(default=None, description="ok or fail.")
    status: Text | None = Field(default=None, description="ok, degraded or fail.")
    code: Text | None = None
    active: Integer | None = None
    exit_code: Integer | None = None
    ready_us: Integer | None = None
    peer: Text | None = None
    from_state: Text | None = None
    to_state: Text | None = None
    requested: Text | None = None
    negotiated: Text | None = None
    caps_hash: Text | None = None
    required_scope: Text | None = None
    addr_hash: Text | None = None
    rule: Text | None = None
    evidence: Text | None = None
    severity: Text | None = None
    source: Text | None = None
    wait_us: Integer | None = None

    # inventory
    list: Text | None = Field(default=None, description="tools, prompts or resources.")
    count: Integer | None = None
    hash: Text | None = None
    added: Integer | None = None
    removed: Integer | None = None
    changed: Integer | None = None
    server_ver: Text | None = None

    # perf
    rss_bytes: Integer | None = None
    mem_limit_bytes: Integer | None = None
    cpu_ratio: Integer | None = Field(default=None, description="CPU in thousandths of a core.")
    fds: Integer | None = None
    loop_lag_us: Integer | None = None
    queue_depth: Integer | None = None
    queue_limit: Integer | None = None
    listen_streams: Integer | None = None
    dropped_events: Integer | None = None

    # health, audit
    check: Text | None = None
    probe: Text | None = None
    latency_us: Integer | None = None
    detail: Text | None = None
    category: Text | None = None
    actor: Text | None = None
    object: Text | None = None
    level: Text | None = None
    msg_code: Text | None = None

    # metric
    name: Text | None = Field(default=None, description="Name of the measurement.")
    value: Number | None = Field(default=None, description="The measurement.")
    unit: Text | None = None


def parse_events(raw: bytes) -> list[Event]:
    """The events in a record's value: one JSON object, or an array of them. Raises ValueError unless all of it is right."""
    value = strict_loads(raw)
    return [Event.model_validate(each) for each in value] if isinstance(value, list) else [Event.model_validate(value)]


def parse_event(raw: bytes) -> Event:
    """The one event in `raw`, a JSON object. Raises ValueError where it is none."""
    return Event.model_validate(strict_loads(raw))
