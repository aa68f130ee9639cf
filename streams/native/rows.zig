//! What is distinct among rows.

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
