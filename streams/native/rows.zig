//! Rows that belong together: what is distinct among them, whose they are, and what they add up to.

const std = @import("std");

inline fn placeOf(value: i64, mask: usize) usize {
    const mixed = @as(u64, @bitCast(value)) *% 0x9e3779b97f4a7c15;
    return @intCast((mixed ^ (mixed >> 32)) & mask);
}

/// Number the values of `rows` rows in the order in which they occur: `codes`, and the first row of each.
///
/// `table` has a power of two of places, at least twice the rows, all of them -1. Returns how many values there are.
export fn tocsin_distinct(values: [*]const i64, rows: usize, table: [*]i32, places: usize, codes: [*]i64, firsts: [*]i64) usize {
    const slots = table[0..places];
    const all = values[0..rows];
    var count: usize = 0;
    for (all, codes[0..rows], 0..) |value, *code, row| {
        var place = placeOf(value, places - 1);
        code.* = while (true) : (place = (place + 1) & (places - 1)) {
            const known = slots[place];
            if (known < 0) {
                slots[place] = @intCast(count);
                firsts[0..rows][count] = @intCast(row);
                count += 1;
                break slots[place];
            }
            if (all[@intCast(firsts[@intCast(known)])] == value) break known;
        };
    }
    return count;
}

/// Put the rows of each of the members 0 to `count` - 1 together, in their order: those of a member end in `order` before its
/// `ends`, which are all 0 before.
export fn tocsin_order(members: [*]const i64, rows: usize, ends: [*]i64, count: usize, order: [*]i64) void {
    const all = members[0..rows];
    const until = ends[0..count];
    for (all) |member| until[@intCast(member)] += 1;
    var start: i64 = 0;
    for (until) |*end| {
        const size = end.*;
        end.* = start;
        start += size;
    }
    for (all, 0..) |member, row| {
        const end = &until[@intCast(member)];
        order[0..rows][@intCast(end.*)] = @intCast(row);
        end.* += 1;
    }
}

/// The rows `touched` of a chunk, and the cell that each belongs to. `of` and `values` are null where nothing asks for them.
const Rows = extern struct {
    touched: [*]const i64,
    cells: [*]const i64,
    count: usize,
    chunk: usize,
    offset: [*]const i64,
    weight: [*]const i64,
    of: ?[*]const bool,
    values: ?[*]const f64,
};

/// What the rows of each cell add up to. Sums are in units of 10**-9, as two words.
const Cells = extern struct {
    size: usize,
    count: [*]i64,
    events: [*]i64,
    of: [*]i64,
    first_offset: [*]i64,
    last_offset: [*]i64,
    sum_high: [*]i64,
    sum_low: [*]u64,
    smallest: [*]f64,
    largest: [*]f64,
};

/// `value` in units of 10**-9, rounded half to even, as schemas/number.py does it.
inline fn fixed(value: f64) i128 {
    const whole = @trunc(value);
    // Beyond this number doubles have no fractions, and adding rounds half to even.
    const rounding = 3 << 51;
    const part = ((value - whole) * 1e9 + rounding) - rounding;
    return @as(i128, @as(i64, @intFromFloat(whole))) * 1_000_000_000 + @as(i64, @intFromFloat(part));
}

/// Add up `rows`, which are in the order of the log, to `cells`, which are all 0 before.
export fn tocsin_reduce(rows: *const Rows, cells: *const Cells) void {
    for (rows.touched[0..rows.count], rows.cells[0..rows.count]) |row_, cell_| {
        const row: usize = @intCast(row_);
        const cell: usize = @intCast(cell_);
        const weight = rows.weight[0..rows.chunk][row];
        const offset = rows.offset[0..rows.chunk][row];
        if (cells.events[0..cells.size][cell] == 0) cells.first_offset[cell] = offset;
        cells.last_offset[cell] = offset;
        cells.events[cell] += 1;
        cells.count[cell] += weight;
        if (rows.of) |of| {
            if (of[row]) cells.of[cell] += weight;
        }
        if (rows.values) |values| {
            const value = values[row];
            const first = cells.events[cell] == 1;
            if (first or value < cells.smallest[cell]) cells.smallest[cell] = value;
            if (first or value > cells.largest[cell]) cells.largest[cell] = value;
            const before = @as(i128, cells.sum_high[cell]) << 64 | cells.sum_low[cell];
            const sum = before + fixed(value) * weight;
            cells.sum_high[cell] = @intCast(sum >> 64);
            cells.sum_low[cell] = @truncate(@as(u128, @bitCast(sum)));
        }
    }
}
