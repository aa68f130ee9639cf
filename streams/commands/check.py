"""`tocsin check`: rule modules, before they are deployed."""

from __future__ import annotations

import os
from pathlib import Path

import click

from schemas.rule import Rule, Ruleset
from schemas.time import duration_text
from streams.channel_names import unserved
from streams.commands.console import Failure, examples, visible
from streams.rule_modules import LoadedRules, load_rules
from streams.settings import variable

PATHS = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")


@click.command("check", epilog=examples("tocsin check rules/", "tocsin check rules/tool_error_rate.py"))
@PATHS
def command(paths: tuple[Path, ...]) -> None:
    """Check rule modules: files, or folders of *.py.

    A rule module defines Rule values and imports from schemas only. Every error is printed with file, line, field and
    what to do. In a folder, files that begin with _ or test_ or end in _examples.py are left out.

    Exit status: 0 all can be deployed, 1 errors.
    """
    loaded = loaded_or_failure(paths)
    warn_of_channels(loaded.ruleset(), os.environ.get(variable("webhook_url"), ""))
    for each in loaded.rules:
        click.echo(f"{each.rule.name:<32} {described(each.rule)}  ({visible(str(each.path))}:{each.line})")
    click.echo(f"{len(loaded.rules)} rules, ruleset {loaded.ruleset().id}; `tocsin deploy` makes it the active one")


def loaded_or_failure(paths: tuple[Path, ...]) -> LoadedRules:
    """The rules of `paths`; prints every error and fails where there are some."""
    loaded = load_rules(paths)
    for error in loaded.errors:
        click.echo(visible(str(error)), err=True)
    if loaded.errors:
        raise Failure(f"{len(loaded.errors)} errors in the rule modules")
    return loaded


def warn_of_channels(ruleset: Ruleset, webhook_url: str) -> None:
    """Print a warning for each channel that rules name and nothing serves."""
    for sentence in unserved(((rule.name, rule.channels) for rule in ruleset.rules), webhook_url=webhook_url):
        click.echo(f"warning: {sentence}", err=True)


def described(rule: Rule) -> str:
    """What a rule looks at and when it fires, in a line."""
    levels = ", ".join(f"{level.severity} {level.when.comparison} {level.when.value:g}" for level in rule.levels)
    windows = f"over {duration_text(rule.over)} every {duration_text(rule.every)}"
    return f"{rule.measure.measure} by {', '.join(rule.by)} {windows}: {levels}"
