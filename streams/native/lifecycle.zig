//! The lifecycle of an episode: pending, firing, resolved, advanced by a pure function.

const std = @import("std");

pub const max_levels = 4;

pub const Verdict = enum { fails, holds, unknown };
pub const Verdicts = [max_levels]Verdict;

/// Where an episode opened, which is its identity: place in the log and time of judgement.
pub const Opening = struct { offset: i64, index: i64, opened_at: i64 };

/// Sum and count of the baseline window of a regression.
pub const Baseline = struct { sum: i128, count: i64 };

/// A level holds (`since` has a time for each that does), but not yet for long enough; or the episode was announced.
pub const Episode = struct {
    opening: Opening,
    since: [max_levels]?i64,
    valued_at: i64,
    baseline: ?Baseline,
    firing: ?Firing,
};

/// Announced with the severity of `rank`; `ordinal` counts the transitions so far.
pub const Firing = struct { rank: i64, recovering: ?i64, ordinal: i64 };

/// What of a rule the lifecycle needs. `ends_in_silence`: silence counts as no data, whatever the value.
pub const Timing = struct {
    hold_for: i64,
    keep_firing_for: i64,
    no_data_after: i64,
    ends_in_silence: bool,
    levels: usize,
    ranks: [max_levels]i64,
};

/// What a judgement at time `at` found. `silent_since` is the last time that an event was counted.
pub const Judgement = struct { at: i64, levels: Verdicts, recovered: Verdict, boundary: bool, silent_since: i64 };

/// What there is to tell: the level that it fires at or rises to, or why it ended.
pub const Outcome = union(enum) { nothing, fired: usize, raised: usize, recovered, no_data };

pub const Advanced = struct { episode: ?Episode, outcome: Outcome = .nothing };

/// The episode after `judgement`. `opening` and `baseline` become those of an episode that opens now.
pub fn advance(before: ?Episode, judgement: *const Judgement, timing: *const Timing, opening: Opening, baseline: ?Baseline) Advanced {
    const levels = judgement.levels[0..timing.levels];
    if (before == null and std.mem.indexOfScalar(Verdict, levels, .holds) == null) return .{ .episode = null };
    var episode = before orelse Episode{
        .opening = opening,
        .since = @splat(null),
        .valued_at = judgement.at,
        .baseline = baseline,
        .firing = null,
    };
    var ripe: ?usize = null;
    var is_open = false;
    for (levels, episode.since[0..timing.levels], 0..) |verdict, *since, level| {
        switch (verdict) {
            .unknown => {},
            .fails => since.* = null,
            .holds => {
                if (since.* == null) since.* = judgement.at;
                if (judgement.at - since.*.? >= timing.hold_for) ripe = level;
            },
        }
        if (since.* != null) is_open = true;
    }
    if (episode.firing != null) return advanceFiring(episode, ripe, judgement, timing);
    if (ripe) |level| {
        episode.firing = .{ .rank = timing.ranks[level], .recovering = null, .ordinal = 1 };
        episode.valued_at = judgement.at;
        return .{ .episode = episode, .outcome = .{ .fired = level } };
    }
    if (!is_open or isWithoutData(episode.valued_at, judgement, timing)) return .{ .episode = null };
    episode.valued_at = valuedAt(episode.valued_at, judgement, timing);
    return .{ .episode = episode };
}

fn isKnown(judgement: *const Judgement, timing: *const Timing) bool {
    for (judgement.levels[0..timing.levels]) |verdict| {
        if (verdict != .unknown) return true;
    }
    return false;
}

/// Whether an open episode has had no data for so long that it ends.
fn isWithoutData(valued_at: i64, judgement: *const Judgement, timing: *const Timing) bool {
    if (!judgement.boundary or (isKnown(judgement, timing) and !timing.ends_in_silence)) return false;
    return judgement.at - (if (timing.ends_in_silence) judgement.silent_since else valued_at) >= timing.no_data_after;
}

fn valuedAt(before: i64, judgement: *const Judgement, timing: *const Timing) i64 {
    return if (judgement.boundary and isKnown(judgement, timing)) judgement.at else before;
}

fn advanceFiring(before: Episode, ripe: ?usize, judgement: *const Judgement, timing: *const Timing) Advanced {
    var episode = before;
    var outcome: Outcome = .nothing;
    const firing = &episode.firing.?;
    if (ripe) |level| {
        if (timing.ranks[level] > firing.rank) {
            firing.rank = timing.ranks[level];
            firing.ordinal += 1;
            outcome = .{ .raised = level };
        }
    }
    switch (judgement.recovered) {
        .unknown => {},
        .fails => firing.recovering = null,
        .holds => {
            const since = firing.recovering orelse judgement.at;
            firing.recovering = since;
            if (judgement.at - since >= timing.keep_firing_for) return .{ .episode = null, .outcome = .recovered };
        },
    }
    if (isWithoutData(episode.valued_at, judgement, timing)) return .{ .episode = null, .outcome = .no_data };
    episode.valued_at = valuedAt(episode.valued_at, judgement, timing);
    return .{ .episode = episode, .outcome = outcome };
}
