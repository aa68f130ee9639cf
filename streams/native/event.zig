//! Events out of JSON: where each field of each event stands in the bytes, for values that are one event or an array of them.
//!
//! What cannot be vouched for by the strict rules of streams/wire.py makes its value doubtful, and is left to that. This is told
//! what the fields are by schemas/event.py, and must read alike what both take: tests/streams/test_scanner.py.

const std = @import("std");
const json = @import("json.zig");
const Json = json.Json;

const block = 16;
const Block = @Vector(block, u8);
const max_fields = 256;
const max_attributes = 32;
/// ts, kind and service, the first fields.
const needed = 3;

/// In the order of `Kind` in streams/scanner.py.
const Kind = enum(i64) { text, name, word, boolean, integer, number, attributes };

/// A row of the fields' table: its name and the words that it may hold are places in `names`.
const Field = extern struct {
    name_at: i64,
    name_size: i64,
    kind: Kind,
    nullable: i64,
    lowest: i64,
    highest: i64,
    words_from: i64,
    words_to: i64,
    /// The start of the name and its quote, and a bit for each byte of them.
    start: [block]u8,
    start_bits: u64,
};

const Word = extern struct { at: i64, size: i64 };

/// What the fields of an event are, and what was learned of how they are written: `following` has for each field the one that
/// came after it last (its last place is the start of an event), `slot_of` the column that holds it, -1 for none.
const Contract = extern struct {
    names: [*]const u8,
    names_size: usize,
    fields: [*]Field,
    field_count: usize,
    words: [*]const Word,
    word_count: usize,
    by_name: [*]i64,
    by_name_size: usize,
    following: [*]i64,
    slot_of: [*]const i64,
    max_text: usize,
};

/// The same with its bounds.
const Fields = struct {
    names: []const u8,
    all: []Field,
    words: []const Word,
    by_name: []i64,
    following: []i64,
    slot_of: []const i64,
    max_text: usize,

    fn of(contract: *const Contract) Fields {
        return .{
            .names = contract.names[0..contract.names_size],
            .all = contract.fields[0..contract.field_count],
            .words = contract.words[0..contract.word_count],
            .by_name = contract.by_name[0..contract.by_name_size],
            .following = contract.following[0 .. contract.field_count + 1],
            .slot_of = contract.slot_of[0..contract.field_count],
            .max_text = contract.max_text,
        };
    }

    inline fn name(fields: *const Fields, field: *const Field) []const u8 {
        return fields.names[@intCast(field.name_at)..][0..@intCast(field.name_size)];
    }

    fn placeOf(fields: *const Fields, text: []const u8) usize {
        return @intCast(std.hash.Wyhash.hash(0, text) & (fields.by_name.len - 1));
    }

    fn find(fields: *const Fields, text: []const u8) ?usize {
        var place = fields.placeOf(text);
        while (fields.by_name[place] >= 0) : (place = (place + 1) & (fields.by_name.len - 1)) {
            const number: usize = @intCast(fields.by_name[place]);
            if (json.equal(fields.name(&fields.all[number]), text)) return number;
        }
        return null;
    }

    /// Whether the name of `field` and its quote stand at `at`.
    inline fn isNamed(fields: *const Fields, text: Json, at: usize, field: *const Field) bool {
        if (field.name_size < block and text.len >= block and at <= text.len - block) {
            const here: Block = text[at..][0..block].*;
            const same: u16 = @bitCast(here == @as(Block, field.start));
            return same & field.start_bits == field.start_bits;
        }
        const name_ = fields.name(field);
        return json.same(text, at, name_) and json.has(text, at + name_.len, '"');
    }
};

/// The values that are scanned: each `data[at[i] .. at[i] + size[i]]`.
const Values = extern struct { data: [*]const u8, data_size: usize, at: [*]const i64, size: [*]const i64, count: usize };

/// What is found, a row for each event: `starts` and `sizes` have `slots` columns of `room` rows. `value` and `row` say how far
/// it came.
const Found = extern struct {
    starts: [*]i32,
    sizes: [*]i32,
    slots: usize,
    room: usize,
    record: [*]i64,
    index: [*]i64,
    doubtful: [*]bool,
    value: usize,
    row: usize,
};

const done = -1;
const no_room = -2;

const Stop = error{
    /// The value is left to streams/wire.py.
    Doubtful,
    /// There are no more rows.
    NoRoom,
    /// The field `missing` has no column.
    NoSlot,
};

const Scanner = struct {
    fields: *const Fields,
    found: *Found,
    starts: []i32,
    sizes: []i32,
    record: []i64,
    index: []i64,
    /// The words that were seen last, so that most are not looked for.
    last_words: [max_fields]?[]const u8 = @splat(null),
    missing: usize = 0,
    /// Where the value that is scanned begins.
    base: usize = 0,

    /// The events of one value, into rows from `found.row` on.
    fn value(scanner: *Scanner, text: Json, place: usize) Stop!void {
        const before = scanner.found.row;
        errdefer scanner.found.row = before;
        var at = json.blanks(text, 0);
        if (!json.has(text, at, '[')) {
            at = try scanner.event(text, at, place, 0);
        } else while (true) {
            at = try scanner.event(text, json.blanks(text, at + 1), place, scanner.found.row - before);
            at = json.blanks(text, at);
            if (json.has(text, at, ',')) continue;
            if (!json.has(text, at, ']')) return error.Doubtful;
            at += 1;
            break;
        }
        if (json.blanks(text, at) != text.len) return error.Doubtful;
    }

    /// The event at `from`; where it ends.
    fn event(scanner: *Scanner, text: Json, from: usize, place: usize, index: usize) Stop!usize {
        if (!json.has(text, from, '{')) return error.Doubtful;
        const found = scanner.found;
        const row = found.row;
        if (row >= found.room) return error.NoRoom;
        for (0..found.slots) |slot| scanner.sizes[slot * found.room + row] = -1;
        var seen: std.StaticBitSet(max_fields) = .empty;
        var previous = scanner.fields.all.len;
        var at = from;
        while (true) {
            at = json.blanks(text, at + 1);
            if (!json.has(text, at, '"')) return error.Doubtful;
            const number = scanner.field(text, at + 1, previous) orelse return error.Doubtful;
            const field_ = &scanner.fields.all[number];
            if (seen.isSet(number)) return error.Doubtful;
            seen.set(number);
            previous = number;
            at = json.blanks(text, at + 2 + @as(usize, @intCast(field_.name_size)));
            if (!json.has(text, at, ':')) return error.Doubtful;
            at = json.blanks(text, at + 1);
            const slot = scanner.fields.slot_of[number];
            if (slot < 0) {
                scanner.missing = number;
                return error.NoSlot;
            }
            at = try scanner.fieldValue(text, at, number, @as(usize, @intCast(slot)) * found.room + row);
            at = json.blanks(text, at);
            if (json.has(text, at, '}')) break;
            if (!json.has(text, at, ',')) return error.Doubtful;
        }
        for (0..needed) |number| {
            if (!seen.isSet(number)) return error.Doubtful;
        }
        scanner.record[row] = @intCast(place);
        scanner.index[row] = @intCast(index);
        found.row += 1;
        return at + 1;
    }

    /// The field whose name begins at `at`. Producers write their fields in the same order again and again.
    inline fn field(scanner: *Scanner, text: Json, at: usize, previous: usize) ?usize {
        const fields = scanner.fields;
        const likely: usize = @intCast(fields.following[previous]);
        if (fields.isNamed(text, at, &fields.all[likely])) return likely;
        const end = std.mem.indexOfScalarPos(u8, text, at, '"') orelse return null;
        const known = fields.find(text[at..end]) orelse return null;
        fields.following[previous] = @intCast(known);
        return known;
    }

    /// The value at `from`, of the field of that `number`, into `cell`; where it ends.
    inline fn fieldValue(scanner: *Scanner, text: Json, from: usize, number: usize, cell: usize) Stop!usize {
        if (from >= text.len) return error.Doubtful;
        const field_ = &scanner.fields.all[number];
        var start = from;
        var end = from;
        var after = from;
        switch (text[from]) {
            '"' => {
                start = from + 1;
                end = json.textEnd(text, start, scanner.fields.max_text) orelse return error.Doubtful;
                after = end + 1;
                switch (field_.kind) {
                    .text => {},
                    .name => if (end == start) return error.Doubtful,
                    .word => if (!scanner.isWord(text[start..end], number)) return error.Doubtful,
                    else => return error.Doubtful,
                }
            },
            '-', '0'...'9' => {
                switch (field_.kind) {
                    .integer => {
                        const found = json.integer(text, from) orelse return error.Doubtful;
                        if (found.value < field_.lowest or found.value > field_.highest) return error.Doubtful;
                        end = found.end;
                    },
                    .number => end = (json.number(text, from) orelse return error.Doubtful).end,
                    else => return error.Doubtful,
                }
                after = end;
            },
            '{' => {
                if (field_.kind != .attributes) return error.Doubtful;
                end = attributes(text, from, scanner.fields.max_text) orelse return error.Doubtful;
                after = end;
            },
            else => {
                end = json.literal(text, from) orelse return error.Doubtful;
                after = end;
                if (text[from] == 'n') {
                    if (field_.nullable == 0) return error.Doubtful;
                    return after; // as absent as if it were not written
                }
                if (field_.kind != .boolean) return error.Doubtful;
            },
        }
        scanner.starts[cell] = @intCast(start + scanner.base);
        scanner.sizes[cell] = @intCast(end - start);
        return after;
    }

    inline fn isWord(scanner: *Scanner, word: []const u8, number: usize) bool {
        if (scanner.last_words[number]) |last| {
            if (json.equal(last, word)) return true;
        }
        const field_ = &scanner.fields.all[number];
        for (scanner.fields.words[@intCast(field_.words_from)..@intCast(field_.words_to)]) |known| {
            if (json.equal(scanner.fields.names[@intCast(known.at)..][0..@intCast(known.size)], word)) {
                scanner.last_words[number] = word;
                return true;
            }
        }
        return false;
    }
};

/// Where the attributes whose brace is at `from` end.
fn attributes(text: Json, from: usize, max_text: usize) ?usize {
    var names: [max_attributes][]const u8 = undefined;
    var count: usize = 0;
    var at = json.blanks(text, from + 1);
    if (json.has(text, at, '}')) return at + 1;
    while (true) {
        if (!json.has(text, at, '"') or count == max_attributes) return null;
        const end = json.textEnd(text, at + 1, max_text) orelse return null;
        const name = text[at + 1 .. end];
        if (name.len == 0) return null;
        for (names[0..count]) |other| {
            if (json.equal(other, name)) return null;
        }
        names[count] = name;
        count += 1;
        at = json.blanks(text, end + 1);
        if (!json.has(text, at, ':')) return null;
        at = json.blanks(text, at + 1);
        if (at >= text.len) return null;
        at = switch (text[at]) {
            '"' => (json.textEnd(text, at + 1, max_text) orelse return null) + 1,
            '-', '0'...'9' => (json.number(text, at) orelse return null).end,
            'n' => return null,
            else => json.literal(text, at) orelse return null,
        };
        at = json.blanks(text, at);
        if (json.has(text, at, '}')) return at + 1;
        if (!json.has(text, at, ',')) return null;
        at = json.blanks(text, at + 1);
    }
}

/// Fill the hash table of the fields' names, a power of two of places that are all -1, and the starts of the names.
export fn tocsin_contract(contract: *const Contract) void {
    const fields: Fields = .of(contract);
    for (fields.all, 0..) |*field, number| {
        const name = fields.name(field);
        var place = fields.placeOf(name);
        while (fields.by_name[place] >= 0) place = (place + 1) & (fields.by_name.len - 1);
        fields.by_name[place] = @intCast(number);
        if (name.len >= block) continue;
        @memcpy(field.start[0..name.len], name);
        field.start[name.len] = '"';
        field.start_bits = (@as(u64, 1) << @intCast(name.len + 1)) - 1;
    }
}

/// Scan the values from `found.value` on into rows from `found.row` on. Returns why it stopped: `done`, `no_room`, or the
/// number of a field that has no column.
export fn tocsin_scan(contract: *const Contract, values: *const Values, found: *Found) i64 {
    const cells = found.slots * found.room;
    var scanner: Scanner = .{
        .fields = &.of(contract),
        .found = found,
        .starts = found.starts[0..cells],
        .sizes = found.sizes[0..cells],
        .record = found.record[0..found.room],
        .index = found.index[0..found.room],
    };
    const data = values.data[0..values.data_size];
    for (values.at[found.value..values.count], values.size[found.value..values.count], found.doubtful[found.value..values.count]) |at, size, *doubtful| {
        doubtful.* = false;
        scanner.base = @intCast(at);
        scanner.value(data[@intCast(at)..][0..@intCast(@max(size, 0))], found.value) catch |stop| switch (stop) {
            error.Doubtful => doubtful.* = true,
            error.NoRoom => return no_room,
            error.NoSlot => return @intCast(scanner.missing),
        };
        found.value += 1;
    }
    return done;
}
