//! Keys out of the places where their parts stand: the partition that an event belongs to, and the group of a rule.

const std = @import("std");
const json = @import("json.zig");
const Column = @import("column.zig").Column;
const Numbers = @import("rows.zig").Numbers;

/// A column with what stands for the values that are absent.
const Part = extern struct {
    column: Column,
    absent: [*]const u8,
    absent_size: usize,

    inline fn at(part: *const Part, row: usize) []const u8 {
        return part.column.at(row) orelse part.absent[0..part.absent_size];
    }
};

/// Kafka's hash of a key that comes in pieces: org.apache.kafka.common.utils.Utils.murmur2.
const Murmur2 = struct {
    const mix = 0x5bd1e995;

    hashed: u32,
    word: u32 = 0,
    bytes: u5 = 0,

    fn init(size: usize) Murmur2 {
        return .{ .hashed = 0x9747b28c ^ @as(u32, @truncate(size)) };
    }

    inline fn add(into: *Murmur2, text: []const u8) void {
        for (text) |byte| {
            into.word |= @as(u32, byte) << (8 * into.bytes);
            into.bytes += 1;
            if (into.bytes == 4) {
                var word = into.word *% mix;
                word = (word ^ word >> 24) *% mix;
                into.hashed = into.hashed *% mix ^ word;
                into.word = 0;
                into.bytes = 0;
            }
        }
    }

    fn final(into: *Murmur2) u32 {
        if (into.bytes > 0) into.hashed = (into.hashed ^ into.word) *% mix;
        const hashed = (into.hashed ^ into.hashed >> 13) *% mix;
        return hashed ^ hashed >> 15;
    }
};

/// The partition, of `partitions`, that each event belongs to: by the key `tenant|service`, see streams/partitioner.py.
export fn tocsin_partitions(tenant: *const Part, service: *const Part, partitions: i64, found: [*]i64) void {
    for (found[0..service.column.count], 0..) |*partition, row| {
        const first = tenant.at(row);
        const last = service.at(row);
        var hash: Murmur2 = .init(first.len + 1 + last.len);
        hash.add(first);
        hash.add("|");
        hash.add(last);
        partition.* = @mod(@as(i64, hash.final() & 0x7fffffff), partitions);
    }
}

/// Number the keys that the parts of each event make, see rows.zig: `codes`, and into `keys` each one as a JSON array, key i
/// ending before `ends[i]`, of which there are as many as rows. Returns how many keys there are.
export fn tocsin_keys(
    parts_: [*]const Part,
    part_count: usize,
    seed: u64,
    table: [*]i32,
    places: usize,
    codes: [*]i64,
    firsts: [*]i64,
    keys: [*]u8,
    room: usize,
    ends: [*]i64,
) usize {
    const parts: Parts = .{ .all = parts_[0..part_count], .seed = seed };
    const rows = parts.all[0].column.count;
    var numbers: Numbers = .{ .table = table[0..places], .firsts = firsts[0..rows] };
    var made: Made = .{ .bytes = keys[0..room] };
    for (codes[0..rows], 0..) |*code, row| {
        const known = numbers.count;
        code.* = numbers.of(parts, row);
        if (numbers.count == known) continue;
        made.key(parts.all, row);
        ends[0..rows][known] = @intCast(made.size);
    }
    return numbers.count;
}

/// The parts of the keys of rows.
const Parts = struct {
    all: []const Part,
    seed: u64,

    pub inline fn hash(parts: Parts, row: usize) usize {
        var hashed = parts.seed;
        for (parts.all) |*part| hashed = std.hash.Wyhash.hash(hashed, part.at(row));
        return hashed;
    }

    pub inline fn isSame(parts: Parts, row: usize, other: usize) bool {
        for (parts.all) |*part| {
            if (!json.equal(part.at(row), part.at(other))) return false;
        }
        return true;
    }
};

/// Keys as table keys hold them. What was scanned has nothing that JSON would escape.
const Made = struct {
    bytes: []u8,
    size: usize = 0,

    fn add(made: *Made, text: []const u8) void {
        @memcpy(made.bytes[made.size..][0..text.len], text);
        made.size += text.len;
    }

    fn key(made: *Made, parts: []const Part, row: usize) void {
        for (parts, 0..) |*part, number| {
            made.add(if (number == 0) "[\"" else "\",\"");
            made.add(part.at(row));
        }
        made.add("\"]");
    }
};
