"""State and records of every release are read as they were meant; what is newer is refused.

A test that fails here says that a format changed, or what it means. Then the version of the state (or of the record) is
raised, the old one stays readable or is refused, and `python -m tests.golden` writes the files of the new one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.rule import Rule, Ruleset
from streams.kernel.partition import VERSION as ENGINE_VERSION
from streams.kernel.partition import PartitionState
from streams.kernel.state_version import StateVersionError
from streams.notifier.policy import UnreadableTransitionError, read_case
from streams.notifier.state import VERSION as NOTIFIER_VERSION
from streams.notifier.state import unpack_episode, unpack_group, unpack_marker
from streams.testing import START
from tests.golden.__main__ import S, event_records
from tests.golden.files import FOLDER, items_of, meaning_of, read, record_of, record_to_json, to_bytes, versions
from tests.golden.folds import Engine, Notifier, table_of
from tests.golden.meaning import decoded

VERSIONS = versions()


def holding(name: str) -> list[Path]:
    return [version for version in VERSIONS if (version / f"{name}.json").exists()]


def ruleset_of(golden: Any) -> Ruleset:
    return Ruleset(rules=tuple(Rule.model_validate(document) for document in golden["ruleset"]))


def test_the_formats_of_now_have_golden_files() -> None:
    assert (FOLDER / f"v{ENGINE_VERSION}" / "engine.json").exists()
    assert (FOLDER / f"v{NOTIFIER_VERSION}" / "notifier.json").exists()


@pytest.mark.parametrize("version", holding("engine"), ids=lambda path: path.name)
class TestEngine:
    def test_a_ruleset_keeps_its_identity(self, version: Path) -> None:
        golden = read(version, "engine")
        assert ruleset_of(golden).id == golden["ruleset_id"]

    def test_a_changelog_is_read_and_gone_on_from(self, version: Path) -> None:
        golden = read(version, "engine")
        table = table_of(items_of(golden["changelog"]))
        assert meaning_of(table) == golden["table"]
        fold = Engine(ruleset_of(golden), table)
        fold.fold([record_of(each) for each in golden["records"]])  # those that are in the state are skipped
        assert fold.transitions == golden["transitions_after"]
        assert meaning_of(fold.table) == golden["table_after"]

    def test_the_log_is_folded_to_the_same(self, version: Path) -> None:
        golden = read(version, "engine")
        fold, records = Engine(ruleset_of(golden), {}), [record_of(each) for each in golden["records"]]
        first, second = golden["saved"]
        fold.fold(records[:first])
        fold.fold(records[first:second])
        assert fold.transitions == golden["transitions_before"]
        assert meaning_of(fold.table) == golden["table"]
        fold.fold(records[second:])
        assert fold.transitions == golden["transitions_before"] + golden["transitions_after"]
        assert fold.sent == golden["sent"]


@pytest.mark.parametrize("version", holding("notifier"), ids=lambda path: path.name)
async def test_the_state_of_the_notifier_is_read_and_gone_on_from(version: Path) -> None:
    golden = read(version, "notifier")
    table = table_of(items_of(golden["changelog"]))
    assert meaning_of(table) == golden["table"]
    kinds = {row[1] for key, row in golden["table"].items() if (to_bytes(key) or b"")[:1] == b"e"}
    assert kinds == {"dispatched", "held"}
    fold = Notifier(table, START + 30 * S)
    await fold.fold([record_of(each) for each in golden["records"]][golden["decided"][0] :])
    await fold.wake(START + 1_000 * S)
    await fold.save()
    assert fold.sent == golden["sent_after"]
    if version.name == f"v{NOTIFIER_VERSION}":
        assert meaning_of(fold.table) == golden["table_after"]


@pytest.mark.parametrize("version", holding("records"), ids=lambda path: path.name)
def test_records_decode_to_what_they_meant(version: Path) -> None:
    records = read(version, "records")
    assert len(records) > 25
    for record in records:
        assert decoded(record) == record["decodes_to"], record["kind"]


def test_the_golden_records_are_those_that_are_written_now() -> None:
    golden = read(FOLDER / f"v{ENGINE_VERSION}", "engine")
    assert [record_to_json(record) for record in event_records()] == golden["records"]


def test_newer_state_of_the_engine_is_refused() -> None:
    golden = read(FOLDER / f"v{ENGINE_VERSION}", "engine")
    table = table_of(items_of(golden["changelog"]))
    table[b"m"] = msgspec.msgpack.encode([ENGINE_VERSION + 1, *msgspec.msgpack.decode(table[b"m"])[1:], "more"])
    with pytest.raises(StateVersionError, match=f"the engine's state has version {ENGINE_VERSION + 1}, .*: run the release that"):
        PartitionState.ruleset_of(table.items())


def test_newer_state_of_the_notifier_is_refused() -> None:
    golden = read(FOLDER / f"v{NOTIFIER_VERSION}", "notifier")
    for key, value in table_of(items_of(golden["changelog"])).items():
        newer = msgspec.msgpack.encode([NOTIFIER_VERSION + 1, *msgspec.msgpack.decode(value)[1:]])
        for unpack in (unpack_marker, unpack_episode, unpack_group):
            with pytest.raises(StateVersionError, match=f"the notifier's state has version {NOTIFIER_VERSION + 1}"):
                unpack(newer)
        assert key


def test_newer_records_are_refused() -> None:
    golden = read(FOLDER / "v1", "engine")
    reasons = {dict(sent["headers"])["dlq.message"] for sent in golden["sent"] if sent["topic"] == "mcp.events.dlq"}
    assert any("`$.v`" in reason for reason in reasons), reasons
    transition = json.loads(golden["transitions_after"][0]) | {"v": 2}
    with pytest.raises(UnreadableTransitionError, match="version 2 is not known; this worker reads version 1"):
        read_case(json.dumps(transition).encode())
