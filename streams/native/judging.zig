//! Judging: what a rule makes of its windows, exactly, and whether a run of events can change it at all.

const std = @import("std");
const Aggregate = @import("aggregates.zig").Aggregate;
const lifecycle = @import("lifecycle.zig");
const Baseline = lifecycle.Baseline;
const Verdict = lifecycle.Verdict;
const max_levels = lifecycle.max_levels;

const scale = 1_000_000_000;
const micros = 1_000_000;

/// In the order of `_MEASURES` in streams/kernel/judge.py.
pub const Measure = enum(i64) { count, rate, sum, mean, min, max, ratio, regression };
const Comparison = enum(i64) { above, below, equal };

/// A 128 bit integer as two words.
pub const Wide = extern struct {
    high: i64,
    low: u64,

    pub fn of(value: i128) Wide {
        return .{ .high = @intCast(value >> 64), .low = @truncate(@as(u128, @bitCast(value))) };
    }

    pub fn get(wide: Wide) i128 {
        return @as(i128, wide.high) << 64 | wide.low;
    }
};

/// A threshold: the value compares with [low, high], in units of 10**-9. `full_only`: unknown until the window is full.
pub const Bound = extern struct { comparison: Comparison, low: Wide, high: Wide, at_least: i64, full_only: i64 };

/// A rule as judging takes it, in the order of Plan.packed in streams/kernel/judge.py. Times are in microseconds.
pub const Plan = extern struct {
    measure: Measure,
    over: i64,
    every: i64,
    baseline_span: i64,
    max_groups: i64,
    block: i64,
    state_id: [8]u8,
    hold_for: i64,
    keep_firing_for: i64,
    no_data_after: i64,
    ends_in_silence: i64,
    levels: i64,
    ranks: [max_levels]i64,
    bounds: [max_levels]Bound,
    has_recover: i64,
    recover: Bound,

    fn timing(plan: *const Plan) lifecycle.Timing {
        return .{
            .hold_for = plan.hold_for,
            .keep_firing_for = plan.keep_firing_for,
            .no_data_after = plan.no_data_after,
            .ends_in_silence = plan.ends_in_silence != 0,
            .levels = @intCast(plan.levels),
            .ranks = plan.ranks,
        };
    }

    /// Slices of the window.
    pub fn span(plan: *const Plan) i64 {
        return @divExact(plan.over, plan.every);
    }

    pub fn isQuantity(plan: *const Plan) bool {
        return switch (plan.measure) {
            .count, .rate, .sum => true,
            else => false,
        };
    }

    fn thresholds(plan: *const Plan) []const Bound {
        return plan.bounds[0..@intCast(plan.levels)];
    }

    /// Whether the products that compare a count or a ratio fit 128 bits.
    fn isNarrow(plan: *const Plan) bool {
        if (plan.measure != .count and plan.measure != .ratio) return false;
        for (plan.thresholds()) |*bound| {
            if (!isSmall(bound)) return false;
        }
        return plan.has_recover == 0 or isSmall(&plan.recover);
    }

    fn isSmall(bound: *const Bound) bool {
        const limit = 1 << 62;
        return @abs(bound.low.get()) < limit and @abs(bound.high.get()) < limit;
    }
};

/// A plan with what is derived from it once.
pub const Rule = struct {
    plan: Plan,
    timing: lifecycle.Timing,
    is_narrow: bool,

    pub fn of(plan: *const Plan) Rule {
        return .{ .plan = plan.*, .timing = plan.timing(), .is_narrow = plan.isNarrow() };
    }
};

/// What a judgement looks at. `full` is null at a row, and where the group is younger than the window.
pub const Windows = struct { judged: Aggregate, full: ?Aggregate, baseline: ?Baseline, boundary: bool };

/// Per level: holds, fails or unknown.
pub fn verdicts(rule: *const Rule, windows: *const Windows) lifecycle.Verdicts {
    return if (rule.is_narrow) Exact(i128).verdicts(&rule.plan, windows) else Exact(i512).verdicts(&rule.plan, windows);
}

/// Whether a firing episode recovers.
pub fn recovered(rule: *const Rule, windows: *const Windows, levels: *const lifecycle.Verdicts) Verdict {
    const plan = &rule.plan;
    return if (rule.is_narrow) Exact(i128).recovered(plan, windows, levels) else Exact(i512).recovered(plan, windows, levels);
}

/// Whether judging after each of the events in `added`, up to stream time `until`, surely leaves `episode` as it is.
///
/// `before` is the judged window without them. Thresholds of full windows only are unknown at rows and change nothing there.
pub fn cannotChange(rule: *const Rule, episode: ?*const lifecycle.Episode, before: *const Aggregate, added: *const Aggregate, baseline: ?Baseline, until: i64) bool {
    const plan = &rule.plan;
    return if (rule.is_narrow)
        Exact(i128).cannotChange(plan, episode, before, added, baseline, until)
    else
        Exact(i512).cannotChange(plan, episode, before, added, baseline, until);
}

/// Comparisons by integers of type `T`. The largest are products of two 128 bit sums, a count, the scale and a threshold.
fn Exact(comptime T: type) type {
    return struct {
        /// An exact rational: numerator and positive denominator.
        const Value = struct { number: T, per: T };
        const Within = struct { least: Value, largest: Value };
        const Throughout = enum { fails, holds, unknown, depends };

        fn holds(bound: *const Bound, value: Value) bool {
            const number = value.number * scale;
            const low = @as(T, bound.low.get()) * value.per;
            const high = @as(T, bound.high.get()) * value.per;
            return switch (bound.comparison) {
                .above => number > high,
                .below => number < low,
                .equal => low <= number and number <= high,
            };
        }

        fn result(plan: *const Plan, window: *const Aggregate, baseline: ?Baseline) ?Value {
            switch (plan.measure) {
                .count => return .{ .number = window.count, .per = 1 },
                .rate => return .{ .number = @as(T, window.count) * micros, .per = plan.over },
                .sum => return .{ .number = window.sum, .per = scale },
                else => {},
            }
            if (window.count == 0) return null;
            return switch (plan.measure) {
                .ratio => .{ .number = window.of, .per = window.count },
                .mean => .{ .number = window.sum, .per = @as(T, window.count) * scale },
                .min => .{ .number = window.smallest, .per = scale },
                .max => .{ .number = window.largest, .per = scale },
                .regression => regression(window.sum, window.count, baseline),
                else => unreachable,
            };
        }

        /// The mean relative to that of the baseline, less one; none without a positive baseline.
        fn regression(sum: T, count: T, baseline: ?Baseline) ?Value {
            const base = baseline orelse return null;
            if (base.count == 0 or base.sum <= 0) return null;
            return .{ .number = sum * base.count - @as(T, base.sum) * count, .per = @as(T, base.sum) * count };
        }

        fn verdict(bound: *const Bound, window: *const Aggregate, value: ?Value) Verdict {
            const found = value orelse return .unknown;
            if (window.count < bound.at_least) return .unknown;
            return if (holds(bound, found)) .holds else .fails;
        }

        fn verdicts(plan: *const Plan, windows: *const Windows) lifecycle.Verdicts {
            const judged = result(plan, &windows.judged, windows.baseline);
            var found: lifecycle.Verdicts = @splat(.unknown);
            for (plan.thresholds(), 0..) |*bound, level| {
                if (bound.full_only == 0) {
                    found[level] = verdict(bound, &windows.judged, judged);
                } else if (windows.full) |*full| {
                    found[level] = verdict(bound, full, result(plan, full, windows.baseline));
                }
            }
            return found;
        }

        fn recovered(plan: *const Plan, windows: *const Windows, judged: *const lifecycle.Verdicts) Verdict {
            var levels = judged.*;
            var window = &windows.judged;
            if (plan.isQuantity()) {
                window = if (windows.full) |*full| full else return .unknown;
                const value = result(plan, window, windows.baseline);
                for (plan.thresholds(), 0..) |*bound, level| levels[level] = verdict(bound, window, value);
            }
            const all = levels[0..@intCast(plan.levels)];
            if (std.mem.indexOfScalar(Verdict, all, .holds) != null) return .fails;
            if (std.mem.indexOfScalar(Verdict, all, .unknown) != null) return .unknown;
            if (plan.has_recover == 0) return .holds;
            return verdict(&plan.recover, window, result(plan, window, windows.baseline));
        }

        fn cannotChange(plan: *const Plan, episode: ?*const lifecycle.Episode, before: *const Aggregate, added: *const Aggregate, baseline: ?Baseline, until: i64) bool {
            const count: usize = @intCast(plan.levels);
            const firing = if (episode) |open| open.firing else null;
            if (episode) |open| {
                // A deploy took its levels away: it ends at the next judgement.
                if (firing == null and std.mem.allEqual(?i64, open.since[0..count], null)) return false;
            }
            const within = reach(plan, before, added, baseline);
            var any_holds = false;
            var any_unknown = false;
            for (plan.thresholds(), 0..) |*bound, level| {
                const since: ?i64 = if (episode) |open| open.since[level] else null;
                switch (throughout(bound, before, added, within)) {
                    .depends => return false,
                    .unknown => any_unknown = true,
                    .fails => if (since != null) return false,
                    .holds => {
                        any_holds = true;
                        const start = since orelse return false;
                        const announced = if (firing) |open| plan.ranks[level] <= open.rank else false;
                        if (!announced and until - start >= plan.hold_for) return false;
                    },
                }
            }
            const open = firing orelse return true;
            if (plan.isQuantity()) return true;
            if (any_holds) return open.recovering == null;
            if (any_unknown) return true;
            return open.recovering == null and plan.has_recover != 0 and
                throughout(&plan.recover, before, added, within) == .fails;
        }

        /// The verdict of `bound` after every event of `added`, or that it depends.
        ///
        /// It may be unknown after the first of them, for want of samples or a value: that changes nothing at a row.
        fn throughout(bound: *const Bound, before: *const Aggregate, added: *const Aggregate, within: ?Within) Throughout {
            if (bound.full_only != 0 or before.count +| added.count < bound.at_least) return .unknown;
            const values = within orelse return .unknown;
            const first = holds(bound, values.least);
            const last = holds(bound, values.largest);
            if (bound.comparison != .equal) return if (first != last) .depends else if (first) .holds else .fails;
            if (first and last) return .holds;
            const is_below = values.largest.number * scale < @as(T, bound.low.get()) * values.largest.per;
            const is_above = values.least.number * scale > @as(T, bound.high.get()) * values.least.per;
            return if (is_below or is_above) .fails else .depends;
        }

        /// The least and the largest value that the measure may have after any prefix of the events in `added`.
        ///
        /// `before` is the window without them. Prefixes without a value are left out; null if all are.
        fn reach(plan: *const Plan, before: *const Aggregate, added: *const Aggregate, baseline: ?Baseline) ?Within {
            const total: T = before.count +| added.count;
            const smallest: T = if (added.events > 0) added.smallest else 0;
            const largest: T = if (added.events > 0) added.largest else 0;
            switch (plan.measure) {
                .count => return .{ .least = .{ .number = before.count, .per = 1 }, .largest = .{ .number = total, .per = 1 } },
                .rate => return .{
                    .least = .{ .number = @as(T, before.count) * micros, .per = plan.over },
                    .largest = .{ .number = total * micros, .per = plan.over },
                },
                .sum => {
                    const worst: T = @min(smallest, 0);
                    const best: T = @max(largest, 0);
                    return .{
                        .least = .{ .number = before.sum + added.count * worst, .per = scale },
                        .largest = .{ .number = before.sum + added.count * best, .per = scale },
                    };
                },
                else => {},
            }
            if (total == 0) return null;
            switch (plan.measure) {
                .ratio => {
                    if (before.count == 0) return .{ .least = .{ .number = 0, .per = 1 }, .largest = .{ .number = 1, .per = 1 } };
                    const misses = added.count - added.of;
                    return .{
                        .least = .{ .number = before.of, .per = @as(T, before.count) + misses },
                        .largest = .{ .number = @as(T, before.of) + added.of, .per = @as(T, before.count) + added.of },
                    };
                },
                .min, .max => {
                    var least = smallest;
                    var most = largest;
                    if (before.count > 0) {
                        const held: T = if (plan.measure == .min) before.smallest else before.largest;
                        least = if (plan.measure == .min and added.events > 0) @min(held, smallest) else held;
                        most = if (plan.measure == .max and added.events > 0) @max(held, largest) else held;
                    }
                    return .{ .least = .{ .number = least, .per = scale }, .largest = .{ .number = most, .per = scale } };
                },
                .mean, .regression => {
                    const sum: T = before.sum;
                    var corners: [4]struct { sum: T, count: T } = undefined;
                    corners[0] = .{ .sum = sum + added.count * smallest, .count = total };
                    corners[1] = .{ .sum = sum + added.count * largest, .count = total };
                    var count: usize = 3;
                    if (before.count > 0) {
                        corners[2] = .{ .sum = sum, .count = before.count };
                    } else {
                        corners[2] = .{ .sum = smallest, .count = 1 };
                        corners[3] = .{ .sum = largest, .count = 1 };
                        count = 4;
                    }
                    var found: ?Within = null;
                    for (corners[0..count]) |corner| {
                        const value: Value = if (plan.measure == .mean)
                            .{ .number = corner.sum, .per = corner.count * scale }
                        else
                            regression(corner.sum, corner.count, baseline) orelse return null;
                        if (found) |*within| {
                            if (value.number * within.least.per < within.least.number * value.per) within.least = value;
                            if (value.number * within.largest.per > within.largest.number * value.per) within.largest = value;
                        } else found = .{ .least = value, .largest = value };
                    }
                    return found;
                },
                else => unreachable,
            }
        }
    };
}
