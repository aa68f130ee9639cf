//! Columns of values out of the places where they stand.

const std = @import("std");
const json = @import("json.zig");
const Numbers = @import("rows.zig").Numbers;

/// One field of n events: each value is `data[starts[i] ..][0..sizes[i]]`, sizes being negative where it is absent.
pub const Column = extern struct {
    data: [*]const u8,
    data_size: usize,
    starts: [*]const i32,
    sizes: [*]const i32,
    count: usize,

    pub inline fn at(column: *const Column, row: usize) ?[]const u8 {
        const size = column.sizes[0..column.count][row];
        if (size < 0) return null;
        return column.data[0..column.data_size][@intCast(column.starts[0..column.count][row])..][0..@intCast(size)];
    }
};

/// The integers of a column; what is absent stays as it is.
export fn tocsin_integers(column: *const Column, found: [*]i64) void {
    for (found[0..column.count], 0..) |*value, row| {
        const text = column.at(row) orelse continue;
        value.* = (json.integer(text, 0) orelse continue).value;
    }
}

/// The numbers of a column as doubles; what is absent, or no number, stays as it is.
export fn tocsin_numbers(column: *const Column, found: [*]f64) void {
    for (found[0..column.count], 0..) |*value, row| {
        const text = column.at(row) orelse continue;
        value.* = (json.number(text, 0) orelse continue).value;
    }
}

/// Number the texts of a column: `codes`, -1 where absent, and the first row of each; see rows.zig. Returns how many there are.
export fn tocsin_intern(column: *const Column, seed: u64, table: [*]i32, places: usize, codes: [*]i64, firsts: [*]i64) usize {
    var numbers: Numbers = .{ .table = table[0..places], .firsts = firsts[0..column.count] };
    const texts: Texts = .{ .column = column, .seed = seed };
    for (codes[0..column.count], 0..) |*code, row| code.* = if (column.at(row) != null) numbers.of(texts, row) else -1;
    return numbers.count;
}

/// The texts of the rows that have one.
const Texts = struct {
    column: *const Column,
    seed: u64,

    pub inline fn hash(texts: Texts, row: usize) usize {
        return std.hash.Wyhash.hash(texts.seed, texts.column.at(row).?);
    }

    pub inline fn isSame(texts: Texts, row: usize, other: usize) bool {
        return json.equal(texts.column.at(row).?, texts.column.at(other).?);
    }
};

/// Where the value of the attribute `name` stands, text without its quotes; sizes are -1 where there is none.
export fn tocsin_attribute(
    column: *const Column,
    name: [*]const u8,
    name_size: usize,
    quoted: [*]bool,
    starts: [*]i32,
    sizes: [*]i32,
) void {
    const rows = column.count;
    for (quoted[0..rows], starts[0..rows], sizes[0..rows], column.starts[0..rows], 0..) |*is_quoted, *start, *size, base, row| {
        size.* = -1;
        const text = column.at(row) orelse continue;
        const place = attribute(text, name[0..name_size]) orelse continue;
        is_quoted.* = text[place.start - 1] == '"';
        start.* = base + @as(i32, @intCast(place.start));
        size.* = @intCast(place.end - place.start);
    }
}

const Place = struct { start: usize, end: usize };

/// Where the value of an attribute of that name stands, in attributes that were vouched for.
fn attribute(text: json.Json, name: []const u8) ?Place {
    var at = json.blanks(text, 1);
    while (json.has(text, at, '"')) {
        const stop = json.textEnd(text, at + 1, text.len) orelse return null;
        const mine = json.equal(text[at + 1 .. stop], name);
        at = json.blanks(text, json.blanks(text, stop + 1) + 1);
        var place: Place = .{ .start = at, .end = at };
        if (json.has(text, at, '"')) {
            place.start = at + 1;
            place.end = json.textEnd(text, place.start, text.len) orelse return null;
            at = place.end + 1;
        } else {
            while (at < text.len and text[at] != ',' and text[at] != '}' and text[at] > ' ') at += 1;
            place.end = at;
        }
        if (mine) return place;
        at = json.blanks(text, json.blanks(text, at) + 1);
    }
    return null;
}
