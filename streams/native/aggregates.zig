//! What is kept of the events of a slice, and of several slices together. Everything is an integer, so merging needs no order:
//! weights and counts as they are, values in units of 10**-9. What no telemetry reaches stays at the end of its range.

const std = @import("std");

/// The events of one slice, or of several merged. `smallest` and `largest` mean something where values were added.
pub const Aggregate = struct {
    count: i64 = 0,
    events: i64 = 0,
    of: i64 = 0,
    first_offset: i64 = -1,
    last_offset: i64 = -1,
    sum: i128 = 0,
    smallest: i128 = 0,
    largest: i128 = 0,

    pub fn add(into: *Aggregate, event: *const Event) void {
        into.merge(&.{
            .count = event.weight,
            .events = 1,
            .of = if (event.of) event.weight else 0,
            .first_offset = event.offset,
            .last_offset = event.offset,
            .sum = event.value * event.weight,
            .smallest = event.value,
            .largest = event.value,
        });
    }

    pub fn merge(into: *Aggregate, other: *const Aggregate) void {
        if (other.events == 0) return;
        if (into.events == 0) {
            into.* = other.*;
            return;
        }
        into.count +|= other.count;
        into.events += other.events;
        into.of +|= other.of;
        into.first_offset = @min(into.first_offset, other.first_offset);
        into.last_offset = @max(into.last_offset, other.last_offset);
        into.sum +|= other.sum;
        into.smallest = @min(into.smallest, other.smallest);
        into.largest = @max(into.largest, other.largest);
    }
};

/// An event as it is counted. `value` is 0 for rules that measure no field.
pub const Event = struct { offset: i64, weight: i64, of: bool, value: i128 };

const Tag = packed struct(u64) { number: i63, dirty: bool };

/// A slice as it is stored by rules that measure no field.
pub const Counted = struct {
    tag: Tag,
    count: i64,
    events: i64,
    of: i64,
    first_offset: i64,
    last_offset: i64,

    pub fn of_(number: i64, from: *const Aggregate) Counted {
        return .{
            .tag = .{ .number = @intCast(number), .dirty = false },
            .count = from.count,
            .events = from.events,
            .of = from.of,
            .first_offset = from.first_offset,
            .last_offset = from.last_offset,
        };
    }

    pub fn aggregate(slice: *const Counted) Aggregate {
        return .{
            .count = slice.count,
            .events = slice.events,
            .of = slice.of,
            .first_offset = slice.first_offset,
            .last_offset = slice.last_offset,
        };
    }
};

/// A slice as it is stored by rules that measure a field.
pub const Valued = struct {
    tag: Tag,
    held: Aggregate,

    pub fn of_(number: i64, from: *const Aggregate) Valued {
        return .{ .tag = .{ .number = @intCast(number), .dirty = false }, .held = from.* };
    }

    pub fn aggregate(slice: *const Valued) Aggregate {
        return slice.held;
    }
};

/// `value` in units of 10**-9, rounded half to even, as schemas/number.py does it.
pub inline fn fixed(value: f64) i128 {
    const whole = @trunc(value);
    // Beyond this number doubles have no fractions, and adding rounds half to even.
    const rounding = 3 << 51;
    const part = ((value - whole) * 1e9 + rounding) - rounding;
    return @as(i128, @as(i64, @intFromFloat(whole))) * 1_000_000_000 + @as(i64, @intFromFloat(part));
}
