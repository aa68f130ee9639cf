"""Before the start: is the broker there, and do the topics exist as they must?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaClient
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnsupportedVersionError, for_code

from streams.settings import Settings
from streams.topics import CHECKPOINT_LIMIT, ENGINE, EVENTS, NOTIFIER, TOPICS, TRANSITIONS, changelog

log = logging.getLogger("tocsin.runtime")

GIVE_UP_AFTER: Final = 60.0
"""Seconds that brokers may be away at start: an address that is wrong shall be seen."""
FIRST_WAIT: Final = 0.25
LONGEST_WAIT: Final = 5.0
_ATTEMPT: Final = 10.0
_PROBE: Final = 4_096
LOOK_EVERY: Final = 10.0
"""Seconds between looks at the number of partitions while the worker runs."""
_T = TypeVar("_T")


class StartError(RuntimeError):
    """The worker cannot start; says what was tried and what to do."""


def check_data_dir(settings: Settings) -> None:
    """Make the folder of the local state. Raises StartError where nothing can be written there."""
    folder = Path(settings.data_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE))
    except OSError as error:
        raise StartError(
            f"TOCSIN_DATA_DIR={settings.data_dir}: no local state can be kept in {folder.absolute()} ({error.strerror}); make it "
            "a folder that this user may write to, with room, or name another"
        ) from error


async def partition_counts(settings: Settings, *, give_up_after: float = GIVE_UP_AFTER) -> dict[str, int]:
    """Every topic on the brokers, by full name, and its number of partitions. Raises StartError where no broker answers."""

    async def ask() -> dict[str, int]:
        client = AIOKafkaClient(**settings.kafka_client())
        try:
            async with asyncio.timeout(_ATTEMPT):
                await client.bootstrap()
                cluster = await client.fetch_all_metadata()
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await client.close()
        return {name: len(cluster.partitions_for_topic(name) or ()) for name in cluster.topics(exclude_internal_topics=False)}

    return await patiently(
        ask, f"no Kafka broker at {settings.bootstrap_servers}", "start one there, or set TOCSIN_BOOTSTRAP_SERVERS", give_up_after
    )


async def patiently(ask: Callable[[], Awaitable[_T]], problem: str, remedy: str, give_up_after: float = GIVE_UP_AFTER) -> _T:
    """What `ask` returns, asked again with growing pauses. Raises StartError, which names `problem` and `remedy`, in the end."""
    loop = asyncio.get_running_loop()
    until, wait = loop.time() + give_up_after, FIRST_WAIT
    while True:
        try:
            return await ask()
        except (KafkaError, OSError, TimeoutError) as error:
            said = str(error) or type(error).__name__
            if loop.time() + wait >= until:
                raise StartError(f"{problem} within {give_up_after:.0f} s ({said}); {remedy}") from error
            log.warning("%s (%s); trying again in %.1f s", problem, said, wait)
        await asyncio.sleep(wait)
        wait = min(LONGEST_WAIT, wait * 2)


async def until_repartitioned(settings: Settings, partitions: int, every: float = LOOK_EVERY) -> None:
    """Raise StartError once the event topic has another number of partitions than `partitions`.

    Producers place services anew from then on, and nobody reads the new partitions: to go on would lose alerts in silence.
    """
    name = settings.topic_prefix + EVENTS.name
    while True:
        await asyncio.sleep(every)
        try:
            found = (await partition_counts(settings, give_up_after=0)).get(name)
        except StartError:
            continue  # the brokers are away, which is not for this to judge
        if found and found != partitions:
            raise StartError(
                f"{name} has {found} partitions now, and had {partitions}: the number is fixed, since state and the place of "
                "every service depend on it. Run `tocsin topics`, which says how to put that right"
            )


def check_topics(settings: Settings, counts: Mapping[str, int], roles: Sequence[str]) -> dict[str, int]:
    """The number of partitions of the topic that each role reads. Raises StartError where topics do not fit."""
    prefix = settings.topic_prefix
    wanted = {prefix + topic.name: topic.partitions for topic in TOPICS}
    wanted |= {changelog(settings.group, role).name: None for role in roles}
    missing = sorted(name for name in wanted if not counts.get(name))
    if missing:
        raise StartError(f"there is no topic {', '.join(missing)} on {settings.bootstrap_servers}; run `tocsin topics`")
    events = counts[prefix + EVENTS.name]
    wrong = [
        f"{name} has {counts[name]} partitions, and {number or events} are needed"
        for name, number in wanted.items()
        if counts[name] != (number or events)
    ]
    if wrong:
        raise StartError(f"{'; '.join(wrong)}: run `tocsin topics`, which says how to put that right")
    return dict.fromkeys((ENGINE, NOTIFIER), events)


async def check_configs(settings: Settings, roles: Sequence[str], *, give_up_after: float = GIVE_UP_AFTER) -> None:
    """Raise StartError where a topic is configured so that it loses what it must keep, or refuses a checkpoint.

    A broker that does not tell its configuration, the embedded one, is believed.
    """
    names = [settings.topic_prefix + EVENTS.name, settings.topic_prefix + TRANSITIONS.name]
    names += [changelog(settings.group, role).name for role in roles]

    async def ask() -> dict[str, dict[str, str]]:
        admin = AIOKafkaAdminClient(**settings.kafka_client())
        try:
            async with asyncio.timeout(_ATTEMPT):
                await admin.start()
                answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
        except (IncompatibleBrokerVersion, UnsupportedVersionError):
            return {}
        finally:
            with contextlib.suppress(KafkaError, OSError):
                await admin.close()
        return dict(_config(resource) for answer in answers for resource in answer.resources)

    problem = f"no Kafka broker at {settings.bootstrap_servers}"
    found = await patiently(ask, problem, "start one there, or set TOCSIN_BOOTSTRAP_SERVERS", give_up_after)
    changelogs = {changelog(settings.group, role).name for role in roles}
    wrong = [text for name, config in found.items() for text in unsafe(name, config, is_changelog=name in changelogs)]
    if wrong:
        raise StartError(f"{'; '.join(wrong)}. Run `tocsin topics --yes`, which sets that right")


def _config(resource: Any) -> tuple[str, dict[str, str]]:
    code, message, _, name, entries = resource[:5]
    if code:
        log.warning("the configuration of %s cannot be read, so it is not checked: %s", name, message or for_code(code).__name__)
    return name, {entry[0]: entry[1] for entry in entries if entry[1] is not None}


def unsafe(name: str, config: Mapping[str, str], *, is_changelog: bool) -> list[str]:
    """What is wrong with the configuration of a topic that the worker reads or keeps its state in. What is not told is fine."""
    wanted = "compact" if is_changelog else "delete"
    wrong = []
    if (policy := config.get("cleanup.policy", wanted)) != wanted:
        loss = "state expires that is still needed" if is_changelog else "records go before they are read"
        wrong.append(f"{name} has cleanup.policy={policy} instead of {wanted}: {loss}")
    if is_changelog and int(config.get("max.message.bytes", CHECKPOINT_LIMIT)) < CHECKPOINT_LIMIT:
        wrong.append(
            f"{name} has max.message.bytes={config['max.message.bytes']}, and a checkpoint may have {CHECKPOINT_LIMIT} bytes"
        )
    return wrong
