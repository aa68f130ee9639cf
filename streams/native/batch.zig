//! The records of a decompressed batch, version 2 of the format: where each one's key, value and headers stand.

const std = @import("std");

const absent = -1;

/// In the order of the columns in streams/fetched.py.
const Column = enum { offset, time, key, key_size, value, value_size, headers };

/// A row for each record, column by column.
const Table = struct {
    cells: []i64,
    rows: usize,

    inline fn set(table: Table, column: Column, row: usize, cell: i64) void {
        table.cells[@intFromEnum(column) * table.rows + row] = cell;
    }
};

const Damaged = error{Damaged};

/// Bytes up to `data.len`, which is never passed.
const Cursor = struct {
    data: []const u8,
    at: usize,

    /// A zigzag varint.
    fn varint(cursor: *Cursor) Damaged!i64 {
        var value: u64 = 0;
        for (0..10) |step| {
            if (cursor.at >= cursor.data.len) return error.Damaged;
            const byte = cursor.data[cursor.at];
            cursor.at += 1;
            value |= @as(u64, byte & 0x7f) << @intCast(step * 7);
            if (byte < 0x80) return @bitCast((value >> 1) ^ (0 -% (value & 1)));
        }
        return error.Damaged;
    }

    /// The size of bytes that stand next, `absent` for null, and step over them.
    fn bytes(cursor: *Cursor) Damaged!i64 {
        const size = try cursor.varint();
        if (size > cursor.data.len - cursor.at) return error.Damaged; // never a sum of what may be any number
        cursor.at += @intCast(@max(size, 0));
        return @max(size, absent);
    }
};

fn split(data: []const u8, at: usize, table: Table, base_offset: i64, time: i64, fixed: bool) Damaged!void {
    var batch: Cursor = .{ .data = data, .at = at };
    for (0..table.rows) |row| {
        const length = try batch.varint();
        if (length < 1 or length > data.len - batch.at) return error.Damaged;
        var record: Cursor = .{ .data = data[0 .. batch.at + @as(usize, @intCast(length))], .at = batch.at + 1 };
        const later = try record.varint();
        table.set(.time, row, if (fixed) time else time +% later);
        table.set(.offset, row, base_offset +% try record.varint());
        inline for (.{ .{ .key, .key_size }, .{ .value, .value_size } }) |columns| {
            const size = try record.bytes();
            table.set(columns[0], row, @intCast(record.at - @as(usize, @intCast(@max(size, 0)))));
            table.set(columns[1], row, size);
        }
        const headers = record.at;
        const count = try record.varint();
        if (count < 0) return error.Damaged;
        table.set(.headers, row, if (count == 0) absent else @intCast(headers));
        var left = count;
        while (left > 0) : (left -= 1) {
            if (try record.bytes() < 0) return error.Damaged; // a name
            _ = try record.bytes();
        }
        if (record.at != record.data.len) return error.Damaged;
        batch.at = record.at;
    }
    if (batch.at != data.len) return error.Damaged;
}

/// Fill the `count` rows of `table`, column by column, with where the records of the batch `data[at..]` stand in `data`. `time` is
/// that of all records where it is `fixed`, else they count from it. False where they are not there.
export fn tocsin_split(
    data: [*]const u8,
    size: usize,
    at: usize,
    table: [*]i64,
    count: usize,
    base_offset: i64,
    time: i64,
    fixed: bool,
) bool {
    split(data[0..size], at, .{ .cells = table[0 .. 7 * count], .rows = count }, base_offset, time, fixed) catch return false;
    return true;
}
