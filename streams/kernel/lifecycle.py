"""The lifecycle of an episode: pending, firing, resolved, advanced by a pure function."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.alert import Reason

Verdict = bool | None
"""True: holds; False: fails; None: unknown, for want of a value or of samples."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Where an episode opened, which is its identity: place in the log and time of judgement."""

    offset: int
    index: int
    opened_at: int


@dataclass(frozen=True, slots=True)
class Timing:
    """What of a rule the lifecycle needs: durations, and the severity rank of each level.

    `ends_in_silence`: silence counts as no data, whatever the value.
    """

    hold_for: int
    keep_firing_for: int
    no_data_after: int
    ends_in_silence: bool
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judgement at time `at` found: a verdict per level, lowest severity first, and whether the rule recovered.

    `silent_since` is the last time that an event was counted.
    """

    at: int
    levels: tuple[Verdict, ...]
    recovered: Verdict
    boundary: bool
    silent_since: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A level holds, but not yet for `hold_for`. `since` has a time per level that holds."""

    opening: Opening
    since: tuple[int | None, ...]
    valued_at: int
    baseline: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Firing:
    """The episode was announced with the severity of `rank`. `ordinal` counts its transitions so far."""

    opening: Opening
    since: tuple[int | None, ...]
    rank: int
    valued_at: int
    recovering: int | None = None
    ordinal: int = 1
    baseline: tuple[int, int] | None = None


Episode = Pending | Firing


@dataclass(frozen=True, slots=True)
class Fired:
    """The episode begins to fire at `level`."""

    level: int


@dataclass(frozen=True, slots=True)
class Raised:
    """The episode rises in severity, to `level`."""

    level: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """The episode ends."""

    reason: Reason


Outcome = Fired | Raised | Resolved | None


def advance(
    episode: Episode | None, judgement: Judgement, timing: Timing, opening: Opening, baseline: tuple[int, int] | None
) -> tuple[Episode | None, Outcome]:
    """The episode after `judgement`, and what there is to tell.

    `opening` and `baseline` become those of an episode that opens now.
    """
    if episode is None:
        if True not in judgement.levels:
            return None, None
        episode = Pending(opening, (None,) * len(judgement.levels), judgement.at, baseline)
    since = tuple(_since(before, verdict, judgement.at) for before, verdict in zip(episode.since, judgement.levels, strict=True))
    ripe = max(
        (
            level
            for level, (start, verdict) in enumerate(zip(since, judgement.levels, strict=True))
            if verdict and start is not None and judgement.at - start >= timing.hold_for
        ),
        default=-1,
    )
    if isinstance(episode, Pending):
        if ripe >= 0:
            return Firing(episode.opening, since, timing.ranks[ripe], judgement.at, baseline=episode.baseline), Fired(ripe)
        if all(start is None for start in since) or _is_without_data(episode.valued_at, judgement, timing):
            return None, None
        after = Pending(episode.opening, since, _valued_at(episode.valued_at, judgement), episode.baseline)
        return (episode if after == episode else after), None
    return _advance_firing(episode, since, ripe, judgement, timing)


def _since(before: int | None, verdict: Verdict, at: int) -> int | None:
    if verdict is None:
        return before
    if not verdict:
        return None
    return at if before is None else before


def _is_known(judgement: Judgement) -> bool:
    return any(verdict is not None for verdict in judgement.levels)


def _is_without_data(valued_at: int, judgement: Judgement, timing: Timing) -> bool:
    """Whether an open episode has had no data for so long that it ends."""
    if not judgement.boundary or (_is_known(judgement) and not timing.ends_in_silence):
        return False
    return judgement.at - (judgement.silent_since if timing.ends_in_silence else valued_at) >= timing.no_data_after


def _valued_at(before: int, judgement: Judgement) -> int:
    return judgement.at if judgement.boundary and _is_known(judgement) else before


def _advance_firing(
    episode: Firing, since: tuple[int | None, ...], ripe: int, judgement: Judgement, timing: Timing
) -> tuple[Episode | None, Outcome]:
    outcome: Outcome = None
    rank, ordinal, recovering = episode.rank, episode.ordinal, episode.recovering
    if ripe >= 0 and timing.ranks[ripe] > rank:
        rank, ordinal, outcome = timing.ranks[ripe], ordinal + 1, Raised(ripe)
    if judgement.recovered is False:
        recovering = None
    elif judgement.recovered:
        recovering = judgement.at if recovering is None else recovering
        if judgement.at - recovering >= timing.keep_firing_for:
            return None, Resolved(Reason.RECOVERED)
    if _is_without_data(episode.valued_at, judgement, timing):
        return None, Resolved(Reason.NO_DATA)
    valued_at = _valued_at(episode.valued_at, judgement)
    after = Firing(episode.opening, since, rank, valued_at, recovering, ordinal, episode.baseline)
    return (episode if after == episode else after), outcome
