//! How the table holds groups and slices: MessagePack, as streams/kernel/group.py describes it.

const std = @import("std");
const Aggregate = @import("aggregates.zig").Aggregate;
const lifecycle = @import("lifecycle.zig");
const max_levels = lifecycle.max_levels;

/// Sums are stored as two numbers, of which the lower lies below this one: each fits 64 bits.
const limb = 1_000_000_000_000_000_000;
/// More than a stored group or slice takes.
const room = 256;

const Writer = struct {
    bytes: [room]u8 = undefined,
    size: usize = 0,

    fn byte(to: *Writer, value: u8) void {
        to.bytes[to.size] = value;
        to.size += 1;
    }

    fn word(to: *Writer, comptime T: type, tag: u8, value: T) void {
        to.byte(tag);
        std.mem.writeInt(T, to.bytes[to.size..][0..@sizeOf(T)], value, .big);
        to.size += @sizeOf(T);
    }

    /// An integer in as few bytes as it takes.
    fn integer(to: *Writer, value: i64) void {
        if (value >= 0) {
            if (value < 0x80) return to.byte(@intCast(value));
            if (value <= std.math.maxInt(u8)) return to.word(u8, 0xcc, @intCast(value));
            if (value <= std.math.maxInt(u16)) return to.word(u16, 0xcd, @intCast(value));
            if (value <= std.math.maxInt(u32)) return to.word(u32, 0xce, @intCast(value));
            return to.word(u64, 0xcf, @intCast(value));
        }
        if (value >= -32) return to.byte(@bitCast(@as(i8, @intCast(value))));
        if (value >= std.math.minInt(i8)) return to.word(i8, 0xd0, @intCast(value));
        if (value >= std.math.minInt(i16)) return to.word(i16, 0xd1, @intCast(value));
        if (value >= std.math.minInt(i32)) return to.word(i32, 0xd2, @intCast(value));
        to.word(i64, 0xd3, value);
    }

    fn optional(to: *Writer, value: ?i64) void {
        if (value) |known| to.integer(known) else to.byte(0xc0);
    }

    fn array(to: *Writer, size: usize) void {
        to.byte(0x90 | @as(u8, @intCast(size)));
    }

    /// A large integer as its two limbs.
    fn limbs(to: *Writer, value: i128) void {
        const high = @divFloor(value, limb);
        to.integer(std.math.lossyCast(i64, high));
        to.integer(@intCast(value - high * limb));
    }

    fn extreme(to: *Writer, value: ?i128) void {
        const known = value orelse return to.byte(0xc0);
        to.array(2);
        to.limbs(known);
    }
};

const Damaged = error{Damaged};

const Reader = struct {
    bytes: []const u8,
    at: usize = 0,

    fn byte(from: *Reader) Damaged!u8 {
        if (from.at == from.bytes.len) return error.Damaged;
        from.at += 1;
        return from.bytes[from.at - 1];
    }

    fn word(from: *Reader, comptime T: type) Damaged!i64 {
        if (from.bytes.len - from.at < @sizeOf(T)) return error.Damaged;
        from.at += @sizeOf(T);
        return std.math.cast(i64, std.mem.readInt(T, from.bytes[from.at - @sizeOf(T) ..][0..@sizeOf(T)], .big)) orelse error.Damaged;
    }

    fn integer(from: *Reader) Damaged!i64 {
        const tag = try from.byte();
        return switch (tag) {
            0x00...0x7f => tag,
            0xe0...0xff => @as(i8, @bitCast(tag)),
            0xcc => from.word(u8),
            0xcd => from.word(u16),
            0xce => from.word(u32),
            0xcf => from.word(u64),
            0xd0 => from.word(i8),
            0xd1 => from.word(i16),
            0xd2 => from.word(i32),
            0xd3 => from.word(i64),
            else => error.Damaged,
        };
    }

    fn isNil(from: *Reader) bool {
        if (from.at == from.bytes.len or from.bytes[from.at] != 0xc0) return false;
        from.at += 1;
        return true;
    }

    fn optional(from: *Reader) Damaged!?i64 {
        return if (from.isNil()) null else try from.integer();
    }

    fn array(from: *Reader) Damaged!usize {
        const tag = try from.byte();
        return if (tag & 0xf0 == 0x90) tag & 0x0f else error.Damaged;
    }

    fn arrayOf(from: *Reader, size: usize) Damaged!void {
        if (try from.array() != size) return error.Damaged;
    }

    fn limbs(from: *Reader) Damaged!i128 {
        const high: i128 = try from.integer();
        return high * limb + try from.integer();
    }

    fn extreme(from: *Reader) Damaged!?i128 {
        if (from.isNil()) return null;
        try from.arrayOf(2);
        return try from.limbs();
    }
};

/// What the table holds of a group, beside its key.
pub const Group = struct { first_at: i64, last_at: i64, episode: ?lifecycle.Episode };

pub fn writeGroup(group: Group, levels: usize, to: *Writer) void {
    const episode = group.episode orelse {
        to.array(2);
        to.integer(group.first_at);
        return to.integer(group.last_at);
    };
    to.array(if (episode.firing == null) 6 else 9);
    to.integer(group.first_at);
    to.integer(group.last_at);
    to.array(3);
    to.integer(episode.opening.offset);
    to.integer(episode.opening.index);
    to.integer(episode.opening.opened_at);
    to.array(levels);
    for (episode.since[0..levels]) |since| to.optional(since);
    if (episode.baseline) |baseline| {
        to.array(3);
        to.limbs(baseline.sum);
        to.integer(baseline.count);
    } else to.byte(0xc0);
    to.integer(episode.valued_at);
    const firing = episode.firing orelse return;
    to.integer(firing.rank);
    to.optional(firing.recovering);
    to.integer(firing.ordinal);
}

pub fn readGroup(bytes: []const u8) Damaged!Group {
    var from: Reader = .{ .bytes = bytes };
    const size = try from.array();
    var group: Group = .{ .first_at = try from.integer(), .last_at = try from.integer(), .episode = null };
    if (size == 2) return group;
    if (size != 6 and size != 9) return error.Damaged;
    try from.arrayOf(3);
    var episode: lifecycle.Episode = .{
        .opening = .{ .offset = try from.integer(), .index = try from.integer(), .opened_at = try from.integer() },
        .since = @splat(null),
        .valued_at = 0,
        .baseline = null,
        .firing = null,
    };
    const levels = try from.array();
    if (levels > max_levels) return error.Damaged;
    for (episode.since[0..levels]) |*since| since.* = try from.optional();
    if (!from.isNil()) {
        try from.arrayOf(3);
        episode.baseline = .{ .sum = try from.limbs(), .count = try from.integer() };
    }
    episode.valued_at = try from.integer();
    if (size == 9) {
        episode.firing = .{ .rank = try from.integer(), .recovering = try from.optional(), .ordinal = try from.integer() };
    }
    group.episode = episode;
    return group;
}

/// `valued`: the rule measures a field.
pub fn writeSlice(held: *const Aggregate, valued: bool, to: *Writer) void {
    to.array(9);
    to.integer(held.count);
    to.integer(held.events);
    to.integer(held.first_offset);
    to.integer(held.last_offset);
    to.integer(held.of);
    to.limbs(held.sum);
    to.extreme(if (valued) held.smallest else null);
    to.extreme(if (valued) held.largest else null);
}

pub fn readSlice(bytes: []const u8) Damaged!Aggregate {
    var from: Reader = .{ .bytes = bytes };
    try from.arrayOf(9);
    return .{
        .count = try from.integer(),
        .events = try from.integer(),
        .first_offset = try from.integer(),
        .last_offset = try from.integer(),
        .of = try from.integer(),
        .sum = try from.limbs(),
        .smallest = try from.extreme() orelse 0,
        .largest = try from.extreme() orelse 0,
    };
}

pub const Bytes = Writer;
