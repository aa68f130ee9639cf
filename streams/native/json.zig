//! JSON token by token, and no more of it than can be vouched for: null wherever a token has faults, or would have to be rewritten
//! to be read (escapes, exponents, numbers of many digits). Every position is one in the slice that ends where the value does.

const std = @import("std");

pub const Json = []const u8;

pub const Integer = struct { value: i64, end: usize };
pub const Number = struct { value: f64, end: usize };
const Digits = struct { value: i64, end: usize };

const max_digits = 16;
/// Up to these many digits a double holds every number, so one division of two exact ones gives the nearest double.
const exact_digits = 15;
const max_integer = 1 << 53;

const powers = blk: {
    var found: [exact_digits + 1]i64 = undefined;
    found[0] = 1;
    for (1..found.len) |power| found[power] = found[power - 1] * 10;
    break :blk found;
};

/// Where the blanks that begin at `from` end.
pub inline fn blanks(json: Json, from: usize) usize {
    var at = from;
    while (at < json.len and (json[at] == ' ' or json[at] == '\n' or json[at] == '\r' or json[at] == '\t')) at += 1;
    return at;
}

/// Whether `byte` stands at `at`.
pub inline fn has(json: Json, at: usize, byte: u8) bool {
    return at < json.len and json[at] == byte;
}

/// Whether `text` stands at `at`.
pub inline fn same(json: Json, at: usize, text: []const u8) bool {
    return json.len >= text.len and at <= json.len - text.len and equal(json[at..][0..text.len], text);
}

/// Whether two texts are the same; most are short.
pub inline fn equal(left: []const u8, right: []const u8) bool {
    if (left.len != right.len) return false;
    var at: usize = 0;
    while (at + 8 <= left.len) : (at += 8) {
        if (std.mem.readInt(u64, left[at..][0..8], .little) != std.mem.readInt(u64, right[at..][0..8], .little)) return false;
    }
    while (at < left.len) : (at += 1) {
        if (left[at] != right[at]) return false;
    }
    return true;
}

/// Where the text whose first character is at `from` ends, at its quote.
pub inline fn textEnd(json: Json, from: usize, max_text: usize) ?usize {
    var at = from;
    var extra: usize = 0;
    while (true) {
        at = ordinary(json, at);
        if (at >= json.len) return null;
        if (json[at] == '"') return if (at - from - extra <= max_text) at else null;
        if (json[at] < 0x80) return null;
        const size = character(json, at) orelse return null;
        at += size;
        extra += size - 1;
    }
}

/// Where the next byte is that a text cannot just hold: a quote, a backslash, a control character, one beyond ASCII.
inline fn ordinary(json: Json, from: usize) usize {
    const Block = @Vector(16, u8);
    var at = from;
    while (at + 16 <= json.len) {
        const block: Block = json[at..][0..16].*;
        const found = @as(u16, @bitCast(block == @as(Block, @splat('"')))) |
            @as(u16, @bitCast(block == @as(Block, @splat('\\')))) |
            @as(u16, @bitCast(block < @as(Block, @splat(0x20)))) |
            @as(u16, @bitCast(block >= @as(Block, @splat(0x80))));
        if (found != 0) return at + @ctz(found);
        at += 16;
    }
    while (at < json.len and json[at] != '"' and json[at] != '\\' and json[at] >= 0x20 and json[at] < 0x80) at += 1;
    return at;
}

/// How many bytes the character beyond ASCII at `at` has.
fn character(json: Json, at: usize) ?usize {
    const size: usize = std.unicode.utf8ByteSequenceLength(json[at]) catch return null;
    if (size > json.len - at or !std.unicode.utf8ValidateSlice(json[at..][0..size])) return null;
    return size;
}

inline fn isDigit(byte: u8) bool {
    return byte >= '0' and byte <= '9';
}

inline fn digits(json: Json, from: usize) ?Digits {
    var at = from;
    var value: i64 = 0;
    while (at + 8 <= json.len) {
        const found = eight(json[at..][0..8]);
        at += found.count;
        if (at - from > max_digits) return null;
        value = value * powers[found.count] + found.value;
        if (found.count < 8) break;
    } else while (at < json.len and isDigit(json[at])) : (at += 1) {
        if (at - from == max_digits) return null;
        value = value * 10 + (json[at] - '0');
    }
    return if (at == from) null else .{ .value = value, .end = at };
}

/// The number that the digits at the start of 8 bytes make, and how many they are: all at once, as they lie side by side in a word.
inline fn eight(bytes: *const [8]u8) struct { value: i64, count: usize } {
    const ones = 0x0101010101010101;
    const word = std.mem.readInt(u64, bytes, .little) ^ ('0' * ones);
    // Where a byte is above 9 its highest bit is set, and perhaps that of bytes after it: the first one counts.
    const others = ((word +% 0x76 * ones) | word) & (0x80 * ones);
    const count = @ctz(others) / 8;
    if (count == 0) return .{ .value = 0, .count = 0 };
    const tens = word << @intCast(64 - 8 * count);
    const pairs = tens *% ((10 << 8) + 1) >> 8 & 0x00ff00ff00ff00ff;
    const fours = pairs *% ((100 << 16) + 1) >> 16 & 0x0000ffff0000ffff;
    const all = fours *% ((10_000 << 32) + 1) >> 32;
    return .{ .value = @intCast(all), .count = count };
}

/// Whether the number that ends at `end` goes on with a fraction or an exponent.
inline fn goesOn(json: Json, end: usize) bool {
    return end < json.len and (json[end] == '.' or json[end] == 'e' or json[end] == 'E');
}

/// The integer at `from`, within +-2**53.
pub inline fn integer(json: Json, from: usize) ?Integer {
    const negative = has(json, from, '-');
    const at = from + @intFromBool(negative);
    const found = digits(json, at) orelse return null;
    if (json[at] == '0' and (found.end - at > 1 or negative)) return null;
    if (found.value > max_integer or goesOn(json, found.end)) return null;
    return .{ .value = if (negative) -found.value else found.value, .end = found.end };
}

/// The number at `from` as the nearest double.
pub fn number(json: Json, from: usize) ?Number {
    if (integer(json, from)) |found| return .{ .value = @floatFromInt(found.value), .end = found.end };
    const negative = has(json, from, '-');
    const at = from + @intFromBool(negative);
    const whole = digits(json, at) orelse return null;
    if (!has(json, whole.end, '.') or (json[at] == '0' and whole.end - at > 1)) return null;
    const part = digits(json, whole.end + 1) orelse return null;
    if (part.end - at - 1 > exact_digits or goesOn(json, part.end)) return null;
    const power = powers[part.end - whole.end - 1];
    const scaled = @as(f64, @floatFromInt(whole.value * power + part.value)) / @as(f64, @floatFromInt(power));
    if (negative and scaled == 0) return null;
    return .{ .value = if (negative) -scaled else scaled, .end = part.end };
}

/// Where true, false or null at `from` ends.
pub fn literal(json: Json, from: usize) ?usize {
    inline for (.{ "true", "false", "null" }) |word| {
        if (same(json, from, word)) return from + word.len;
    }
    return null;
}
