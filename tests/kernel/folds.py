"""A log folded by the oracle and by the kernel, with the same outcome to compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final

from schemas.alert import Transition
from schemas.rule import Rule
from streams.kernel.partition import PartitionState
from tests.kernel.log import Record, chunk_of, chunks, rulesets_of
from tests.kernel.oracle import Oracle

TOPIC = "mcp.events"
PARTITION = 3
MAX_GROUPS = 100_000
MAX_REDRIVEN = 3
"""Few, so that the bound is met."""
Table = dict[bytes, bytes]


@dataclass(slots=True)
class Outcome:
    """What a fold said and counted. Two are equal if they say the same, byte for byte."""

    transitions: list[Transition] = field(default_factory=list, compare=False, repr=False)
    texts: list[str] = field(default_factory=list, repr=False)
    late: Mapping[str, int] = field(default_factory=Counter)
    overflow: Mapping[str, int] = field(default_factory=Counter)
    duplicates: int = 0
    counted: int = 0
    unreadable: list[str] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    applied: int = -1
    stream_time: int = 0

    def say(self, transitions: Iterable[Transition]) -> None:
        for transition in transitions:
            self.transitions.append(transition)
            self.texts.append(transition.model_dump_json())


@dataclass(frozen=True, slots=True)
class Plan:
    """How the kernel is to get a log: divided into chunks of `sizes`.

    `saved`: the numbers of the chunks after which what changed is written to the table. `restored`: those after which it
    is written, and the state restored from it. `repeated`: how many records before a chunk are delivered with it again.
    """

    sizes: tuple[int, ...] = ()
    saved: frozenset[int] = frozenset()
    restored: frozenset[int] = frozenset()
    repeated: int = 0


AT_ONCE: Final = Plan()


def agree(expected: Outcome, found: Outcome) -> None:
    """Raises AssertionError that names the first transition, or the count, in which they differ."""
    for n, (one, other) in enumerate(zip_longest(expected.texts, found.texts)):
        if one != other:
            raise AssertionError(f"transition {n}\n  expected {one}\n  found    {other}")
    if expected != found:
        raise AssertionError(f"counts\n  expected {expected}\n  found    {found}")


def by_oracle(
    records: Sequence[Record], max_groups: int = MAX_GROUPS, raises: Callable[[Rule, int], bool] | None = None
) -> Outcome:
    """The log as the definition has it."""
    oracle, outcome = Oracle(TOPIC, PARTITION, max_groups, MAX_REDRIVEN, raises), Outcome()
    for record in records:
        outcome.say(oracle.apply(record))
    outcome.late, outcome.overflow, outcome.unreadable = oracle.late, oracle.overflow, oracle.unreadable
    outcome.refused, outcome.repeated = oracle.refused, oracle.repeated
    outcome.duplicates, outcome.counted = oracle.duplicates, oracle.counted
    outcome.applied, outcome.stream_time = oracle.applied, oracle.stream_time
    return outcome


def by_kernel(
    records: Sequence[Record], plan: Plan = AT_ONCE, max_groups: int = MAX_GROUPS
) -> tuple[Outcome, dict[bytes, bytes]]:
    """The log as the kernel has it under `plan`, and the table that it leaves."""
    rulesets = rulesets_of(records)
    state = PartitionState(TOPIC, PARTITION, max_groups, MAX_REDRIVEN)
    outcome, table = Outcome(), Table()
    late: Counter[str] = Counter()
    overflow: Counter[str] = Counter()
    done = 0
    for number, chunk in enumerate(chunks(records, plan.sizes)):
        again = records[max(done - plan.repeated, 0) : done]
        changes = state.apply(chunk_of([*again, *chunk]), rulesets)
        done += len(chunk)
        outcome.say(changes.transitions)
        late.update(changes.late)
        overflow.update(changes.overflow)
        outcome.duplicates += changes.duplicates
        outcome.counted += changes.counted
        outcome.unreadable.extend(changes.unreadable)
        outcome.refused |= changes.refused
        outcome.repeated |= changes.repeated
        if number in plan.saved | plan.restored:
            save(state, table)
        if number in plan.restored:
            state = PartitionState.restore(TOPIC, PARTITION, list(table.items()), rulesets, max_groups, MAX_REDRIVEN)
    save(state, table)
    outcome.late, outcome.overflow = late, overflow
    outcome.applied, outcome.stream_time = state.applied, state.stream_time
    return outcome, table


def save(state: PartitionState, table: Table) -> None:
    """Fold what changed into the table, as the changelog does. A key that came twice would depend on the order."""
    changed = state.take_dirty()
    assert len(dict(changed)) == len(changed)
    for key, value in changed:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
