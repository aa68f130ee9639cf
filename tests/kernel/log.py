"""One partition's log, record by record, and the same log in chunks as the kernel takes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from schemas.event import Event
from schemas.rule import Ruleset
from streams.kernel.columns import Chunk, Columns, Origin, Redriven, Step, Structs, SwitchStep, TickStep

SECOND: Final = 1_000_000
T0: Final = 1_700_000_000 * SECOND
"""When the logs of the tests begin; a multiple of every `every` that divides 100 s."""
_BLANK: Final[dict[str, Any]] = dict.fromkeys(Event.model_fields)


@dataclass(frozen=True, slots=True)
class Row:
    """One event: `fields` as a producer wrote them, without `ts` and `weight`."""

    ts: int
    fields: Mapping[str, Any]
    weight: int = 1
    local: bool = True
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class EventsRecord:
    offset: int
    append_time: int
    rows: tuple[Row, ...]
    redriven: Redriven | None = None


@dataclass(frozen=True, slots=True)
class TickRecord:
    offset: int
    append_time: int


@dataclass(frozen=True, slots=True)
class SwitchRecord:
    """A switch; `ruleset` is None where its documents cannot be read."""

    offset: int
    append_time: int
    id: str
    seq: int
    ruleset: Ruleset | None


@dataclass(frozen=True, slots=True)
class NothingRecord:
    """A dead letter or an empty array."""

    offset: int


Record = EventsRecord | TickRecord | SwitchRecord | NothingRecord


def rulesets_of(records: Iterable[Record]) -> dict[str, Ruleset]:
    """The documents that can be read, as the runtime would have them."""
    return {record.id: record.ruleset for record in records if isinstance(record, SwitchRecord) and record.ruleset is not None}


def chunks(records: Sequence[Record], sizes: Iterable[int]) -> Iterator[tuple[Record, ...]]:
    """`records` divided into runs of `sizes`, and wherever they are delivered again; what is left over is one more."""
    again = [n for n in range(1, len(records)) if records[n].offset <= records[n - 1].offset]
    ends = sorted({end for end in [*again, *accumulate(sizes)] if 0 < end < len(records)})
    for start, end in zip([0, *ends], [*ends, len(records)], strict=True):
        if start < end:
            yield tuple(records[start:end])


def chunk_of(records: Sequence[Record]) -> Chunk:
    """Consecutive records as the decoder would give them: neighbouring events as one block of columns."""
    steps: list[Step] = []
    block: list[EventsRecord] = []

    def close() -> None:
        if any(record.rows for record in block):
            steps.append(columns_of(block))
        block.clear()

    for record in records:
        match record:
            case EventsRecord():
                block.append(record)
            case TickRecord():
                close()
                steps.append(TickStep(record.offset, record.append_time))
            case SwitchRecord():
                close()
                steps.append(SwitchStep(record.offset, record.append_time, record.id, record.seq))
            case NothingRecord():
                pass
    close()
    return Chunk(tuple(steps), records[-1].offset)


def columns_of(records: Sequence[EventsRecord]) -> Columns:
    """The rows of `records` as columns."""
    placed = [(record, index, row) for record in records for index, row in enumerate(record.rows)]

    def column(values: Iterable[int]) -> Any:
        return np.array(list(values), dtype=np.int64)

    return Columns(
        fields=Structs(
            [SimpleNamespace(**(_BLANK | {"ts": row.ts, "weight": row.weight} | dict(row.fields))) for _, _, row in placed]
        ),
        offset=column(record.offset for record, _, _ in placed),
        index=column(index for _, index, _ in placed),
        append_time=column(record.append_time for record, _, _ in placed),
        ts=column(row.ts for _, _, row in placed),
        weight=column(row.weight for _, _, row in placed),
        local=np.array([row.local for _, _, row in placed], dtype=np.bool_),
        origins={n: row.origin for n, (_, _, row) in enumerate(placed) if row.origin is not None},
        redriven={n: record.redriven for n, (record, _, _) in enumerate(placed) if record.redriven is not None},
    )
