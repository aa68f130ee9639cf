//! What is distinct among rows.

/// Numbers for the values of rows, in the order in which they occur.
///
/// `table` has a power of two of places, at least twice the rows, all of them -1; `firsts` as many as rows.
pub const Numbers = struct {
    table: []i32,
    firsts: []i64,
    count: usize = 0,

    /// The number of the value of `row`. `values` has the methods `hash(row)` and `isSame(row, other)`.
    pub inline fn of(numbers: *Numbers, values: anytype, row: usize) i64 {
        const mask = numbers.table.len - 1;
        var place = values.hash(row) & mask;
        while (numbers.table[place] >= 0) : (place = (place + 1) & mask) {
            const known = numbers.table[place];
            if (values.isSame(@intCast(numbers.firsts[@intCast(known)]), row)) return known;
        }
        numbers.table[place] = @intCast(numbers.count);
        numbers.firsts[numbers.count] = @intCast(row);
        numbers.count += 1;
        return numbers.table[place];
    }
};

const Integers = struct {
    all: []const i64,

    pub inline fn hash(integers: Integers, row: usize) usize {
        const mixed = @as(u64, @bitCast(integers.all[row])) *% 0x9e3779b97f4a7c15;
        return @intCast(mixed ^ (mixed >> 32));
    }

    pub inline fn isSame(integers: Integers, row: usize, other: usize) bool {
        return integers.all[row] == integers.all[other];
    }
};

/// Number the values of `rows` rows: `codes`, and the first row of each. Returns how many values there are.
export fn tocsin_distinct(values: [*]const i64, rows: usize, table: [*]i32, places: usize, codes: [*]i64, firsts: [*]i64) usize {
    var numbers: Numbers = .{ .table = table[0..places], .firsts = firsts[0..rows] };
    const integers: Integers = .{ .all = values[0..rows] };
    for (codes[0..rows], 0..) |*code, row| code.* = numbers.of(integers, row);
    return numbers.count;
}
