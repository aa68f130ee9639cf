"""`tocsin deploy` on a real broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from schemas.control import RulesetRecord, is_signed, parse_control
from schemas.rule import Ruleset
from streams.deployer import Deployer
from streams.rule_modules import load_rules
from streams.ruleset_log import Deploy, DeployError, plan_deploy
from streams.settings import Settings
from streams.topic_reader import TopicReader
from tests.commands.running import KEY, module, records, send, tocsin, with_admin
from tests.conftest import Topics

pytestmark = pytest.mark.integration


def switches(settings: Settings) -> list[tuple[int, int, str]]:
    """(partition, seq, id) of the ruleset records, all of which are signed."""
    found = []
    for record in records(settings, "mcp.events"):
        control = parse_control(dict(record.headers)["tocsin"])
        assert isinstance(control, RulesetRecord)
        place = {"topic": settings.topic_prefix + "mcp.events", "partition": record.partition, "value": b""}
        assert is_signed(control, KEY.encode(), **place)  # type: ignore[arg-type]
        found.append((record.partition, control.seq, control.id))
    return sorted(found)


def keys(settings: Settings) -> list[str]:
    return [(record.key or b"").decode() for record in records(settings, "mcp.rules")]


def ruleset(path: str) -> Ruleset:
    return load_rules([Path(path)]).ruleset()


def test_a_deploy_puts_documents_intent_and_signed_records(own: Settings, tmp_path: Path) -> None:
    path = module(tmp_path, one="1m", two="2m")
    rules = ruleset(path)
    result = tocsin(own, "deploy", path)
    assert result.exit_code == 0, result.output
    assert "+ one\n+ two\n2 added, 0 changed, 0 removed" in result.stdout
    assert f"ruleset {rules.id} (2 rules) is active: deploy 1," in result.stdout
    assert switches(own) == [(partition, 1, rules.id) for partition in range(3)]
    written = keys(own)
    assert {f"rule/{rule.revision}" for rule in rules.rules} | {f"ruleset/{rules.id}"} == set(written[:3])
    assert written[3].startswith("deploy/0000000001/")
    assert written[4:] == ["deployed/0000000001"]

    again = tocsin(own, "deploy", path)
    assert again.exit_code == 0
    assert again.stdout == f"no change: ruleset {rules.id} is active since deploy 1\n"
    assert len(keys(own)) == 5
    assert tocsin(own, "deploy", path, "--again").exit_code == 0
    assert len(switches(own)) == 6


def test_a_dry_run_and_a_refused_removal_write_nothing(own: Settings, tmp_path: Path) -> None:
    assert tocsin(own, "deploy", module(tmp_path, one="1m", two="2m")).exit_code == 0
    before = len(keys(own)), len(switches(own))
    path = module(tmp_path, one="3m", three="1m")
    refused = tocsin(own, "deploy", path)
    assert refused.exit_code == 1
    assert "would remove 1 of the active rules: two. Give --prune" in refused.stderr
    dry = tocsin(own, "deploy", path, "--dry-run")
    assert dry.exit_code == 0
    assert "+ three\n~ one: over, every, no_data_after\n- two\n" in dry.stdout
    assert "these removals need --prune" in dry.stderr
    assert (len(keys(own)), len(switches(own))) == before
    pruned = tocsin(own, "deploy", path, "--prune")
    assert pruned.exit_code == 0, pruned.output
    assert (2, 2, ruleset(path).id) in switches(own)


def test_a_deploy_based_on_another_ruleset_is_refused(own: Settings, tmp_path: Path) -> None:
    path = module(tmp_path, one="1m")
    assert tocsin(own, "deploy", path).exit_code == 0
    base = ruleset(path).id
    path = module(tmp_path, one="2m")
    result = tocsin(own, "deploy", path, "--based-on", "0" * 16)
    assert result.exit_code == 1
    assert "another deploy came between" in result.stderr
    assert tocsin(own, "deploy", path, "--based-on", base).exit_code == 0


async def test_of_two_deploys_at_once_one_is_refused(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    await topics.create(partitions=2)
    first, second = ruleset(module(tmp_path / "a", one="1m")), ruleset(module(tmp_path / "b", two="1m"))
    async with Deployer(settings) as one, Deployer(settings) as other:
        plans = plan_deploy(await one.read(), first), plan_deploy(await other.read(), second)
        outcomes = await asyncio.gather(one.carry_out(plans[0]), other.carry_out(plans[1]), return_exceptions=True)
    lost = [outcome for outcome in outcomes if isinstance(outcome, DeployError)]
    won = [outcome for outcome in outcomes if isinstance(outcome, Deploy)]
    assert len(lost) == len(won) == 1
    assert "another deploy came between" in str(lost[0])
    async with TopicReader(settings.kafka_client(), settings.topic_prefix + "mcp.events") as reader:
        controls = [parse_control(dict(record.headers)["tocsin"]) async for record in reader.to_end()]
    assert controls == [RulesetRecord(id=won[0].id, seq=1)] * 2


class _StoppedError(RuntimeError):
    """A deploy process that ended."""


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_a_half_done_deploy_is_completed_or_superseded(
    own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    assert tocsin(own, "deploy", module(tmp_path, one="1m")).exit_code == 0
    base, path = ruleset(str(tmp_path)).id, module(tmp_path, one="2m")
    half = ruleset(path).id

    async def stop_after_one(deployer: Deployer, deploy: Deploy) -> None:
        await deployer._announce(deploy, 1)
        raise _StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(Deployer, "announce", stop_after_one)
        assert isinstance(tocsin(own, "deploy", path).exception, _StoppedError)
    assert switches(own) == [(0, 1, base), (1, 1, base), (1, 2, half), (2, 1, base)]

    if not same:
        path = module(tmp_path, one="4m")
    result = tocsin(own, "deploy", path)
    assert result.exit_code == 0, result.output
    assert f"deploy 2 (ruleset {half}) was not finished" in result.stdout
    seq, active = (2, half) if same else (3, ruleset(path).id)
    assert all((partition, seq, active) in switches(own) for partition in range(3))
    assert keys(own)[-1] == f"deployed/{seq:010}"
    assert tocsin(own, "deploy", path).stdout.startswith("no change")


def test_a_deploy_without_topics_names_the_command(settings: Settings, tmp_path: Path) -> None:
    result = tocsin(settings, "deploy", module(tmp_path, one="1m"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: the topic {settings.topic_prefix}mcp.rules does not exist; `tocsin topics` creates it\n"


def test_foreign_records_on_the_rules_topic_are_named(own: Settings, tmp_path: Path) -> None:
    send(own, "mcp.rules", ("rule/1", b"\xff"))
    result = tocsin(own, "deploy", module(tmp_path, one="1m"))
    assert result.exit_code == 0
    assert "cannot be read and is left out: offset 0" in result.stderr


def test_an_event_topic_that_was_given_partitions_is_refused(own: Settings, tmp_path: Path) -> None:
    async def grow(admin: AIOKafkaAdminClient) -> None:
        await admin.create_partitions({own.topic_prefix + "mcp.events": NewPartitions(5)})

    asyncio.run(with_admin(own, grow))
    result = tocsin(own, "deploy", module(tmp_path, one="1m"))
    assert result.exit_code == 1
    assert f"{own.topic_prefix}mcp.events has 5 partitions, and {own.group}-engine-state-changelog has 3" in result.output
    assert "Set a new TOCSIN_TOPIC_PREFIX and TOCSIN_GROUP, run `tocsin topics`, and deploy there" in result.output
    assert not keys(own)
