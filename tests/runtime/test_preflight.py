from __future__ import annotations

import os
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.runtime.preflight import (
    StartError,
    check_data_dir,
    check_topics,
    partition_counts,
    patiently,
    unsafe,
    until_repartitioned,
)
from streams.settings import Settings
from streams.topics import ENGINE, NOTIFIER, TOPICS, changelog
from tests.servers.process import free_port

SETTINGS = Settings(topic_prefix="p.", group="g")


def counts(partitions: int = 4) -> dict[str, int]:
    found = {f"p.{topic.name}": topic.partitions or partitions for topic in TOPICS}
    return found | {changelog("g", role).name: partitions for role in (ENGINE, NOTIFIER)}


def test_topics_that_fit() -> None:
    assert check_topics(SETTINGS, counts(), (ENGINE, NOTIFIER)) == {ENGINE: 4, NOTIFIER: 4}


def test_topics_that_are_missing_are_named_with_the_remedy() -> None:
    found = counts()
    del found["p.mcp.events"], found["g-notifier-state-changelog"]
    with pytest.raises(
        StartError, match=r"there is no topic g-notifier-state-changelog, p.mcp.events on .*; run `tocsin topics`"
    ):
        check_topics(SETTINGS, found, (ENGINE, NOTIFIER))
    found["p.mcp.events"] = 4
    assert check_topics(SETTINGS, found, (ENGINE,))


def test_partitions_that_do_not_match_are_named() -> None:
    with pytest.raises(StartError, match="g-engine-state-changelog has 8 partitions, and 4 are needed"):
        check_topics(SETTINGS, counts() | {"g-engine-state-changelog": 8}, (ENGINE,))
    with pytest.raises(StartError, match=r"p.mcp.rules has 4 partitions, and 1 are needed"):
        check_topics(SETTINGS, counts() | {"p.mcp.rules": 4}, (ENGINE,))


async def test_what_comes_in_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.runtime.preflight.FIRST_WAIT", 0.001)
    left = 3

    async def ask() -> str:
        nonlocal left
        left -= 1
        if left:
            raise KafkaConnectionError("nobody there")
        return "here"

    assert await patiently(ask, "no broker", "start one") == "here"


async def test_no_broker_is_told_with_the_address_and_the_remedy() -> None:
    settings = Settings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    with pytest.raises(
        StartError, match=rf"no Kafka broker at {settings.bootstrap_servers} within 0 s .*TOCSIN_BOOTSTRAP_SERVERS"
    ):
        await partition_counts(settings, give_up_after=0.3)


async def test_a_topic_that_is_given_more_partitions_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[dict[str, int] | None] = [{"p.mcp.events": 4}, None, {}, {"p.mcp.events": 6}]

    async def look(_settings: Settings, *, give_up_after: float) -> dict[str, int]:
        assert give_up_after == 0
        found = looks.pop(0)
        if found is None:
            raise StartError("no broker")
        return found

    monkeypatch.setattr("streams.runtime.preflight.partition_counts", look)
    with pytest.raises(StartError, match=r"p.mcp.events has 6 partitions now, and had 4: .* Run `tocsin topics`"):
        await until_repartitioned(SETTINGS, 4, every=0)
    assert not looks


CHANGELOG = changelog("g", ENGINE)


def test_topics_as_they_are_created_are_safe() -> None:
    assert not unsafe(CHANGELOG.name, CHANGELOG.config, is_changelog=True)
    for topic in TOPICS:
        if topic.name in ("mcp.events", "mcp.transitions"):
            assert not unsafe(topic.name, topic.config, is_changelog=False)
    assert not unsafe(CHANGELOG.name, {}, is_changelog=True)  # a broker that does not tell


def test_a_changelog_that_expires_is_refused() -> None:
    config = CHANGELOG.config | {"cleanup.policy": "compact,delete"}
    (said,) = unsafe(CHANGELOG.name, config, is_changelog=True)
    assert said.startswith("g-engine-state-changelog has cleanup.policy=compact,delete instead of compact: state expires")


def test_a_changelog_that_takes_no_checkpoint_is_refused() -> None:
    (said,) = unsafe(CHANGELOG.name, CHANGELOG.config | {"max.message.bytes": "1048588"}, is_changelog=True)
    assert said == "g-engine-state-changelog has max.message.bytes=1048588, and a checkpoint may have 16777216 bytes"


def test_an_event_topic_that_is_compacted_is_refused() -> None:
    (said,) = unsafe("mcp.events", {"cleanup.policy": "compact"}, is_changelog=False)
    assert said == "mcp.events has cleanup.policy=compact instead of delete: records go before they are read"


def test_a_data_dir_is_made_and_left_empty(tmp_path: Path) -> None:
    check_data_dir(Settings(data_dir=str(tmp_path / "a" / "b")))
    assert not list((tmp_path / "a" / "b").iterdir())


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StartError, match=rf"TOCSIN_DATA_DIR={folder}: no local state can be kept in .* \((File|Not a)"):
            check_data_dir(Settings(data_dir=str(folder)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_dir_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StartError, match="Permission denied"):
        check_data_dir(Settings(data_dir=str(tmp_path / "below")))
