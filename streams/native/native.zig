//! Loops over bytes and rows as machine code. What is beyond an array ends the process, it is never read: the checks stay in.

const std = @import("std");

pub const panic = std.debug.simple_panic;

comptime {
    _ = @import("batch.zig");
    _ = @import("column.zig");
    _ = @import("event.zig");
    _ = @import("groups.zig");
    _ = @import("keys.zig");
    _ = @import("rows.zig");
}
