"""`tocsin state`: verify, rebuild, export and import the state."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from schemas.time import to_rfc3339
from streams.commands.console import Failure, connected, examples, settings, visible
from streams.kernel.state_version import StateVersionError
from streams.runtime.producer import FencedError
from streams.runtime.recomputation import NewerCopyError, Recomputation, UnreachableError
from streams.runtime.repair import RepairError, compared, exported, imported, partitions_of, rebuilt, table_in
from streams.runtime.rulesets import MissingRulesetError
from streams.settings import Settings
from streams.state_copy import CopyReader, CopyWriter, StateCopyError

TOLD: Final = 20
_Result = TypeVar("_Result")
_SAYING: Final = (
    RepairError, StateCopyError, StateVersionError, UnreachableError, NewerCopyError, MissingRulesetError, FencedError,
)  # fmt: skip
"""Errors whose message says all."""
_COPY = click.Path(exists=True, dir_okay=False, path_type=Path)
_FROM = click.option("--from", "copy", type=_COPY, metavar="FILE", help="Begin with the state that `tocsin state export` wrote.")


@click.group("state", epilog=examples("tocsin state verify", "tocsin state export backup.tocsin"))
def command() -> None:
    """Verify, rebuild, export and import the state, which workers keep in their changelogs."""


def _done(configured: Settings, work: Coroutine[Any, Any, _Result]) -> _Result:
    try:
        return connected(configured, work)
    except _SAYING as error:
        raise Failure(str(error)) from None
    except BrokenPipeError:
        raise  # whoever read our output has gone; click ends quietly
    except OSError as error:
        raise Failure(f"{error.filename or 'the file'} cannot be read or written: {error.strerror or error}") from None


def _reader(path: Path | None) -> CopyReader | None:
    try:
        return None if path is None else CopyReader(path)
    except StateCopyError as error:
        raise Failure(str(error)) from None


# --- verify --------------------------------------------------------------------------------------------------------


@command.command(
    "verify", epilog=examples("tocsin state verify", "tocsin state verify 3", "tocsin state verify --from backup.tocsin")
)
@click.argument("partitions", type=click.IntRange(0), nargs=-1, metavar="[PARTITION]...")
@_FROM
def verify(partitions: tuple[int, ...], copy: Path | None) -> None:
    """Recompute partitions from mcp.events, and compare with the changelog, key by key. All partitions where none is named.

    Reads only, also beside running workers. Where retention has cut the log since the state began, give a copy of the state
    that is old enough by --from.

    Exit status: 0 everything is the same, 1 something differs or could not be compared, 2 unusable settings.
    """
    configured = settings(signs=True)
    sys.exit(0 if _done(configured, _verify(configured, partitions, _reader(copy))) else 1)


async def _verify(settings: Settings, partitions: tuple[int, ...], copy: CopyReader | None) -> bool:
    number = await partitions_of(settings)
    same = True
    async with Recomputation(settings, number) as recomputation:
        for partition in _known(partitions, number):
            try:
                base = None if copy is None else await table_in(settings, copy, partition)
                found = await compared(settings, recomputation, partition, base)
            except UnreachableError as error:
                same = False
                click.echo(
                    f"partition {partition}: not compared: {error}; "
                    f"give a copy that goes up to {error.begin - 1} or further by --from"
                )
                continue
            except (MissingRulesetError, NewerCopyError) as error:
                same = False
                click.echo(f"partition {partition}: not compared: {error}")
                continue
            if found.applied < 0 and not found.differences:
                click.echo(f"partition {partition}: no state yet")
                continue
            result = "same" if not found.differences else f"{len(found.differences)} differences"
            click.echo(f"partition {partition}: {result}, {found.keys} keys at offset {found.applied}")
            for text in found.differences[:TOLD]:
                click.echo(f"  {visible(text)[:500]}")
            same = same and not found.differences
    return same


def _known(partitions: tuple[int, ...], number: int) -> list[int]:
    unknown = [partition for partition in partitions if partition >= number]
    if unknown:
        raise RepairError(f"there is no partition {unknown[0]}: the event topic has {number}, from 0")
    return sorted(set(partitions)) or list(range(number))


# --- rebuild -------------------------------------------------------------------------------------------------------


@command.command("rebuild", epilog=examples("tocsin state rebuild 3 --yes", "tocsin state rebuild 3 --from backup.tocsin --yes"))
@click.argument("partition", type=click.IntRange(0))
@_FROM
@click.option("--yes", is_flag=True, help="Do not ask.")
def rebuild(partition: int, copy: Path | None, yes: bool) -> None:
    """Throw the engine's state of PARTITION away, and recompute it from mcp.events.

    The worker that owns the partition is shut out and ends; its supervisor starts it again, and it goes on from the new
    state. Nothing is written where the log does not reach back far enough; --from gives a copy to begin with.
    """
    configured = settings(signs=True)
    if not yes:
        if not sys.stdin.isatty():
            raise Failure("the worker that owns the partition will end (and is to be started again): give --yes")
        click.confirm(f"replace the state of partition {partition}? The worker that owns it will end", abort=True)
    applied = _done(configured, _rebuild(configured, partition, _reader(copy)))
    click.echo(f"partition {partition}: state rebuilt up to offset {applied}; a worker goes on from there")


async def _rebuild(settings: Settings, partition: int, copy: CopyReader | None) -> int:
    number = await partitions_of(settings)
    _known((partition,), number)
    base = None if copy is None else await table_in(settings, copy, partition)
    async with Recomputation(settings, number) as recomputation:
        try:
            return await rebuilt(settings, recomputation, partition, base)
        except UnreachableError as error:
            raise RepairError(
                f"{error}. Give a copy that goes up to {error.begin - 1} or further by --from; without one, set a new "
                "TOCSIN_GROUP and run `tocsin topics`: workers then count what the log still holds"
            ) from None


# --- export and import ---------------------------------------------------------------------------------------------


@command.command("export", epilog=examples("tocsin state export backup.tocsin"))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def export(file: Path) -> None:
    """Write all state and the rules it needs into FILE, checksummed, whole or not at all. Workers may run meanwhile.

    FILE brings the state back as long as mcp.events and mcp.transitions still hold what came after it.
    """
    configured = settings()

    async def work() -> dict[str, int]:
        with CopyWriter(file) as writer:
            return await exported(configured, writer)

    counts = _done(configured, work())
    click.echo(f"{', '.join(f'{number} items of the {role}' for role, number in counts.items())} written to {file}")


@command.command(
    "import", epilog=examples("TOCSIN_GROUP=restored tocsin topics", "TOCSIN_GROUP=restored tocsin state import backup.tocsin")
)
@click.argument("file", type=_COPY)
def import_(file: Path) -> None:
    """Bring the state in FILE back into an empty group; workers of that group go on from it, exactly.

    Refused: a group that holds state, other topics or partitions, a log that no longer reaches back to the copy.
    """
    configured = settings()
    copy = _reader(file)
    assert copy is not None  # noqa: S101 - a path was given
    counts = _done(configured, imported(configured, copy))
    click.echo(
        f"{', '.join(f'{number} items of the {role}' for role, number in counts.items())}, written "
        f"{to_rfc3339(copy.header.at * 1000)}, are in group {configured.group}; next: tocsin run"
    )
