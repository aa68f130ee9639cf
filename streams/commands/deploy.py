"""`tocsin deploy`: make rules active."""

from __future__ import annotations

from pathlib import Path

import click

from schemas.rule import Ruleset
from streams.commands.check import PATHS, loaded_or_failure, warn_of_channels
from streams.commands.console import connected, examples, settings, visible
from streams.deployer import Deployer
from streams.ruleset_log import Plan, RulesetLog, plan_deploy
from streams.settings import Settings
from streams.topics import EVENTS


@click.command(
    "deploy", epilog=examples("tocsin deploy rules/ --dry-run", "tocsin deploy rules/", "tocsin deploy rules/ --prune")
)
@PATHS
@click.option("--prune", is_flag=True, help="Remove the active rules that PATH does not hold.")
@click.option("--dry-run", is_flag=True, help="Say what would change; write nothing.")
@click.option("--based-on", metavar="ID", help="Refuse unless this is the current ruleset.")
@click.option(
    "--again", is_flag=True, help="Append the ruleset records again although nothing changed (a new event topic or group)."
)
def command(paths: tuple[Path, ...], prune: bool, dry_run: bool, based_on: str | None, again: bool) -> None:
    """Make the rules of PATH the active ruleset, whole.

    Prints what is added (+), changed (~, with the fields) and removed (-). The rules go to mcp.rules as JSON documents,
    then a ruleset record to every partition of mcp.events: from there on a partition is judged by them. No worker is
    restarted. A deploy that was stopped half-way is completed by running it again; of two at the same time one is refused.

    Exit status: 0 the ruleset is active, 1 refused or failed, 2 unusable settings.
    """
    ruleset = loaded_or_failure(paths).ruleset()
    configured = settings(signs=True)
    warn_of_channels(ruleset, configured.webhook_url)
    connected(configured, _deploy(configured, ruleset, prune=prune, dry_run=dry_run, based_on=based_on, again=again))


async def _deploy(settings: Settings, ruleset: Ruleset, *, prune: bool, dry_run: bool, based_on: str | None, again: bool) -> None:
    async with Deployer(settings) as deployer:
        log = await deployer.read()
        for place in log.unreadable:
            click.echo(f"warning: a record of mcp.rules cannot be read and is left out: {visible(place)}", err=True)
        plan = plan_deploy(log, ruleset, prune=prune or dry_run, based_on=based_on, again=again)
        _show(plan, log)
        if plan.change.removed and not prune:
            click.echo("these removals need --prune", err=True)
        if dry_run or plan.is_done:
            return
        deploy = await deployer.carry_out(plan)
        topic, partitions = settings.topic_prefix + EVENTS.name, len(deployer.partitions)
        click.echo(
            f"ruleset {deploy.id} ({len(ruleset.rules)} rules) is active: deploy {deploy.seq}, {topic}, {partitions} partitions"
        )
        click.echo("workers that run switch by themselves; `tocsin run` starts one")


def _show(plan: Plan, log: RulesetLog) -> None:
    current = log.current
    if plan.is_done and current:
        click.echo(f"no change: ruleset {current.id} is active since deploy {current.seq}")
        return
    if current and not log.is_finished(current):
        what = "this run completes it" if not plan.claims else "this one takes its place"
        click.echo(f"deploy {current.seq} (ruleset {current.id}) was not finished: {what}")
    change = plan.change
    for name in change.added:
        click.echo(f"+ {name}")
    for name, fields in change.changed.items():
        click.echo(f"~ {name}: {', '.join(fields)}")
    for name in change.removed:
        click.echo(f"- {visible(name)}")
    click.echo(
        f"{len(change.added)} added, {len(change.changed)} changed, {len(change.removed)} removed; ruleset {plan.ruleset.id}"
    )
