//! The groups of one rule in one partition: their slices and episodes, folded chunk by chunk.
//!
//! A step (a chunk, a record, a tick, a switch) is remembered until the next one begins, so that it can be undone where what
//! it led to cannot be told.

const std = @import("std");
const aggregates = @import("aggregates.zig");
const judging = @import("judging.zig");
const lifecycle = @import("lifecycle.zig");
const stored = @import("stored.zig");
const Aggregate = aggregates.Aggregate;
const Episode = lifecycle.Episode;
const Plan = judging.Plan;
const Wide = judging.Wide;
const Windows = judging.Windows;

const memory = std.heap.smp_allocator;
/// Bytes of what is remembered of a step above which it is given back.
const kept_bytes = 4 << 20;

/// The rows of a chunk that are folded: those of `touched`, which lie in [start, end). See streams/kernel/groups.py.
const Rows = extern struct {
    count: usize,
    start: usize,
    end: usize,
    before: i64,
    ts: [*]const i64,
    weight: [*]const i64,
    offset: [*]const i64,
    index: [*]const i64,
    append_time: [*]const i64,
    times: [*]const i64,
    touched: [*]const i64,
    touched_count: usize,
    of: ?[*]const bool,
    values: ?[*]const f64,
    codes: [*]const i64,
    /// The keys of the codes, one after the other; key i ends before `key_ends[i]`.
    keys: [*]const u8,
    key_ends: [*]const i64,
    key_count: usize,

    fn time(rows: *const Rows, row: usize) i64 {
        return rows.times[0..rows.count][row];
    }

    fn decider(rows: *const Rows, row: usize) Decider {
        return .{
            .offset = rows.offset[0..rows.count][row],
            .index = rows.index[0..rows.count][row],
            .append_time = rows.append_time[0..rows.count][row],
        };
    }

    fn event(rows: *const Rows, row: usize) aggregates.Event {
        return .{
            .offset = rows.offset[0..rows.count][row],
            .weight = rows.weight[0..rows.count][row],
            .of = if (rows.of) |of| of[0..rows.count][row] else false,
            .value = if (rows.values) |values| aggregates.fixed(values[0..rows.count][row]) else 0,
        };
    }

    fn key(rows: *const Rows, code: usize) []const u8 {
        const ends = rows.key_ends[0..rows.key_count];
        const start: usize = if (code == 0) 0 else @intCast(ends[code - 1]);
        return rows.keys[start..@intCast(ends[code])];
    }

    /// The first row from `from` on at which stream time is at least `at`.
    fn reaches(rows: *const Rows, from: usize, at: i64) usize {
        var low = from;
        var high = rows.end;
        while (low < high) {
            const middle = low + (high - low) / 2;
            if (rows.time(middle) < at) low = middle + 1 else high = middle;
        }
        return low;
    }
};

/// The record that decides.
const Decider = extern struct { offset: i64, index: i64, append_time: i64 };

/// The slices that a rule looks at while stream time lies in slice `current`: window [first, current] and, before it, the
/// baseline [baseline_first, first).
const Reach = extern struct { baseline_first: i64, first: i64, current: i64 };

const Kind = enum(i64) { fired, raised, recovered, no_data, removed };

const Window = extern struct {
    count: i64,
    events: i64,
    of: i64,
    first_offset: i64,
    last_offset: i64,
    sum: Wide,
    smallest: Wide,
    largest: Wide,

    fn of_(held: *const Aggregate) Window {
        return .{
            .count = held.count,
            .events = held.events,
            .of = held.of,
            .first_offset = held.first_offset,
            .last_offset = held.last_offset,
            .sum = .of(held.sum),
            .smallest = .of(held.smallest),
            .largest = .of(held.largest),
        };
    }
};

/// What there is to tell. The key is good until the next step.
const Outcome = extern struct {
    decider: Decider,
    at: i64,
    kind: Kind,
    level: i64,
    key: [*]const u8,
    key_size: usize,
    opening: extern struct { offset: i64, index: i64, opened_at: i64 },
    rank: i64,
    ordinal: i64,
    reach: Reach,
    has_windows: i64,
    has_full: i64,
    has_baseline: i64,
    boundary: i64,
    judged: Window,
    full: Window,
    baseline_sum: Wide,
    baseline_count: i64,
};

/// Counts since they were last taken.
const Counts = extern struct { judged: i64 = 0, late: i64 = 0, overflow: i64 = 0 };

/// What the table is told: an item for each key, with a value of -1 bytes where it is gone.
const Item = extern struct { key_at: i64, key_size: i64, value_at: i64, value_size: i64 };
const Taken = extern struct { data: [*]const u8, size: usize, items: [*]const Item, count: usize };

const group_tag = 'g';
const slice_tag = 'c';

fn Groups(comptime Slice: type) type {
    return struct {
        const Self = @This();
        const is_valued = Slice == aggregates.Valued;

        const Group = struct {
            key: []const u8,
            first_at: i64,
            last_at: i64,
            episode: ?*Episode = null,
            slices: std.ArrayList(Slice) = .empty,
            /// The group itself is to be written.
            dirty: bool = false,
            /// It stands among those of which something is to be written.
            listed: bool = false,
            gone: bool = false,

            fn find(group: *const Group, number: i64) ?usize {
                var place = group.slices.items.len;
                while (place > 0) {
                    place -= 1;
                    if (group.slices.items[place].tag.number == number) return place;
                }
                return null;
            }

            /// The slices [first, end) as one.
            fn window(group: *const Group, first: i64, end: i64) Aggregate {
                var total: Aggregate = .{};
                for (group.slices.items) |*slice| {
                    if (first <= slice.tag.number and slice.tag.number < end) total.merge(&slice.aggregate());
                }
                return total;
            }

            fn open(group: *const Group) ?Episode {
                return if (group.episode) |episode| episode.* else null;
            }

            fn free(group: *Group) void {
                if (group.episode) |episode| memory.destroy(episode);
                group.slices.deinit(memory);
                memory.free(group.key);
                memory.destroy(group);
            }
        };

        /// How a step is undone, the last first.
        const Undo = union(enum) {
            times: struct { group: *Group, first_at: i64, last_at: i64 },
            episode: struct { group: *Group, before: ?*Episode },
            added: struct { group: *Group, number: i64 },
            changed: struct { group: *Group, before: Slice },
            created: *Group,
            forgotten: *Group,
        };

        const Numbered = struct { number: i64, held: Aggregate };

        rule: judging.Rule,
        groups: std.StringHashMapUnmanaged(*Group) = .empty,
        counts: Counts = .{},
        counts_before: Counts = .{},
        undo: std.ArrayList(Undo) = .empty,
        outcomes: std.ArrayList(Outcome) = .empty,
        /// Groups of which something is to be written, and table keys that are gone.
        listed: std.ArrayList(*Group) = .empty,
        gone: std.StringHashMapUnmanaged(void) = .empty,
        dirty: usize = 0,
        added: std.ArrayList(Numbered) = .empty,
        data: std.ArrayList(u8) = .empty,
        items: std.ArrayList(Item) = .empty,

        fn init(plan: *const Plan) Self {
            return .{ .rule = .of(plan) };
        }

        fn deinit(self: *Self) void {
            self.settle();
            for (self.listed.items) |group| {
                if (group.gone) group.free();
            }
            var all = self.groups.valueIterator();
            while (all.next()) |group| group.*.free();
            self.groups.deinit(memory);
            var keys = self.gone.keyIterator();
            while (keys.next()) |key| memory.free(key.*);
            self.gone.deinit(memory);
            inline for (.{ "undo", "outcomes", "listed", "added", "data", "items" }) |name| @field(self, name).deinit(memory);
        }

        // --- steps -----------------------------------------------------------------------------------------------------

        /// Begin a step: what the one before did stays.
        fn settle(self: *Self) void {
            for (self.undo.items) |*each| switch (each.*) {
                .episode => |*change| if (change.before) |before| memory.destroy(before),
                .forgotten => |group| if (!group.listed) group.free(),
                else => {},
            };
            empty(&self.undo);
            empty(&self.outcomes);
            self.counts_before = self.counts;
        }

        fn empty(records: anytype) void {
            if (records.capacity * @sizeOf(@TypeOf(records.items[0])) > kept_bytes) records.clearAndFree(memory) else records.items.len = 0;
        }

        /// The outcomes after the first `told`.
        fn after(self: *const Self, told: usize, outcomes: *[*]const Outcome) usize {
            outcomes.* = self.outcomes.items.ptr + told;
            return self.outcomes.items.len - told;
        }

        /// Undo the last step.
        fn rollBack(self: *Self) void {
            while (self.undo.pop()) |each| switch (each) {
                .times => |before| {
                    before.group.first_at = before.first_at;
                    before.group.last_at = before.last_at;
                },
                .episode => |change| {
                    if (change.group.episode) |episode| memory.destroy(episode);
                    change.group.episode = change.before;
                },
                .added => |slice| {
                    const place = slice.group.find(slice.number).?;
                    self.removed(slice.group, place);
                },
                .changed => |change| {
                    const group = change.group;
                    const slice = if (group.find(change.before.tag.number)) |place| &group.slices.items[place] else extended(group);
                    self.write(group, slice, change.before);
                },
                .created => |group| {
                    self.forgetKey(group);
                    _ = self.groups.remove(group.key);
                    group.gone = true;
                    if (!group.listed) group.free();
                },
                .forgotten => |group| {
                    group.gone = false;
                    self.groups.put(memory, group.key, group) catch full();
                    group.dirty = false;
                    self.touched(group);
                    for (group.slices.items) |*slice| {
                        slice.tag.dirty = false;
                        self.marked(group, slice);
                    }
                },
            };
            self.outcomes.items.len = 0;
            self.counts = self.counts_before;
        }

        // --- what is to be written ---------------------------------------------------------------------------------------

        fn enlist(self: *Self, group: *Group) void {
            if (group.listed) return;
            group.listed = true;
            self.listed.append(memory, group) catch full();
        }

        fn touched(self: *Self, group: *Group) void {
            if (!group.dirty) self.dirty += 1;
            group.dirty = true;
            self.enlist(group);
        }

        fn marked(self: *Self, group: *Group, slice: *Slice) void {
            if (!slice.tag.dirty) self.dirty += 1;
            slice.tag.dirty = true;
            self.enlist(group);
        }

        /// Room for one more slice of `group`, to be written.
        fn extended(group: *Group) *Slice {
            const slice = group.slices.addOne(memory) catch full();
            slice.tag.dirty = false;
            return slice;
        }

        fn write(self: *Self, group: *Group, slice: *Slice, held: Slice) void {
            const dirty = slice.tag.dirty;
            slice.* = held;
            slice.tag.dirty = dirty;
            self.marked(group, slice);
        }

        fn remember(self: *Self, key: []const u8) void {
            const place = self.gone.getOrPut(memory, key) catch full();
            if (!place.found_existing) place.key_ptr.* = memory.dupe(u8, key) catch full();
        }

        /// The table key of a group, or of one of its slices.
        fn tableKey(self: *Self, group: *const Group, number: ?i64, to: *std.ArrayList(u8)) void {
            to.append(memory, if (number == null) group_tag else slice_tag) catch full();
            to.appendSlice(memory, &self.rule.plan.state_id) catch full();
            if (number) |known| {
                var bytes: [8]u8 = undefined;
                std.mem.writeInt(i64, &bytes, known, .big);
                to.appendSlice(memory, &bytes) catch full();
            }
            to.appendSlice(memory, group.key) catch full();
        }

        fn goes(self: *Self, group: *const Group, number: ?i64) void {
            var key: std.ArrayList(u8) = .empty;
            defer key.deinit(memory);
            self.tableKey(group, number, &key);
            self.remember(key.items);
        }

        fn forgetKey(self: *Self, group: *Group) void {
            self.goes(group, null);
            if (group.dirty) self.dirty -= 1;
            group.dirty = false;
        }

        /// Take a slice away.
        fn removed(self: *Self, group: *Group, place: usize) void {
            const slice = group.slices.orderedRemove(place);
            if (slice.tag.dirty) self.dirty -= 1;
            self.goes(group, slice.tag.number);
        }

        /// Everything that changed since the last call.
        fn take(self: *Self, taken: *Taken) void {
            self.settle();
            self.data.items.len = 0;
            self.items.items.len = 0;
            for (self.listed.items) |group| {
                if (group.gone) {
                    group.free();
                    continue;
                }
                group.listed = false;
                if (group.dirty) {
                    var value: stored.Bytes = .{};
                    const held: stored.Group = .{ .first_at = group.first_at, .last_at = group.last_at, .episode = group.open() };
                    stored.writeGroup(held, self.rule.timing.levels, &value);
                    self.put(group, null, value.bytes[0..value.size]);
                }
                group.dirty = false;
                for (group.slices.items) |*slice| {
                    if (!slice.tag.dirty) continue;
                    slice.tag.dirty = false;
                    var value: stored.Bytes = .{};
                    stored.writeSlice(&slice.aggregate(), is_valued, &value);
                    self.put(group, slice.tag.number, value.bytes[0..value.size]);
                }
            }
            empty(&self.listed);
            self.dirty = 0;
            var keys = self.gone.keyIterator();
            while (keys.next()) |key| {
                const at = self.data.items.len;
                self.data.appendSlice(memory, key.*) catch full();
                self.items.append(memory, .{
                    .key_at = @intCast(at),
                    .key_size = @intCast(key.len),
                    .value_at = 0,
                    .value_size = -1,
                }) catch full();
                memory.free(key.*);
            }
            self.gone.clearAndFree(memory);
            taken.* = .{
                .data = self.data.items.ptr,
                .size = self.data.items.len,
                .items = self.items.items.ptr,
                .count = self.items.items.len,
            };
        }

        /// A key is never both gone and there: what came again is there.
        fn put(self: *Self, group: *const Group, number: ?i64, value: []const u8) void {
            const at = self.data.items.len;
            self.tableKey(group, number, &self.data);
            const size = self.data.items.len - at;
            if (self.gone.fetchRemove(self.data.items[at..])) |held| memory.free(held.key);
            self.data.appendSlice(memory, value) catch full();
            self.items.append(memory, .{
                .key_at = @intCast(at),
                .key_size = @intCast(size),
                .value_at = @intCast(at + size),
                .value_size = @intCast(value.len),
            }) catch full();
        }

        fn release(self: *Self) void {
            self.data.clearAndFree(memory);
            self.items.clearAndFree(memory);
        }

        fn restoreGroup(self: *Self, key: []const u8, value: []const u8) bool {
            const held = stored.readGroup(value) catch return false;
            const group = self.make(key, held.first_at);
            group.last_at = held.last_at;
            if (held.episode) |episode| group.episode = copy(episode);
            return true;
        }

        fn restoreSlice(self: *Self, key: []const u8, number: i64, value: []const u8) bool {
            const group = self.groups.get(key) orelse return false;
            const held = stored.readSlice(value) catch return false;
            group.slices.append(memory, .of_(number, &held)) catch full();
            return true;
        }

        fn copy(episode: Episode) *Episode {
            const made = memory.create(Episode) catch full();
            made.* = episode;
            return made;
        }

        fn make(self: *Self, key: []const u8, first_at: i64) *Group {
            const group = memory.create(Group) catch full();
            group.* = .{ .key = memory.dupe(u8, key) catch full(), .first_at = first_at, .last_at = 0 };
            self.groups.put(memory, group.key, group) catch full();
            return group;
        }

        // --- folding -----------------------------------------------------------------------------------------------------

        /// Close the slices that stream time passes, and count and judge the rows between.
        fn fold(self: *Self, rows: *const Rows) void {
            const every = self.rule.plan.every;
            const all = rows.touched[0..rows.touched_count];
            var previous = @divFloor(rows.before, every);
            var row = rows.start;
            var done: usize = 0;
            while (row < rows.end) {
                const now = @divFloor(rows.time(row), every);
                if (now > previous) {
                    self.close(previous, now, rows.decider(row));
                    previous = now;
                }
                row = rows.reaches(row, (now + 1) * every);
                var until = done;
                while (until < all.len and all[until] < row) until += 1;
                if (until > done) self.count(rows, all[done..until], self.reachAt(now));
                done = until;
            }
        }

        fn reachAt(self: *const Self, current: i64) Reach {
            const first = current + 1 - self.rule.plan.span();
            return .{ .baseline_first = first - self.rule.plan.baseline_span, .first = first, .current = current };
        }

        /// Judge every group at each boundary from slice `previous` to `current`, and forget the idle ones.
        fn close(self: *Self, previous: i64, current: i64, decider: Decider) void {
            var idle: std.ArrayList(*Group) = .empty;
            defer idle.deinit(memory);
            var all = self.groups.valueIterator();
            while (all.next()) |place| {
                var number = previous + 1;
                while (number <= current) : (number += 1) {
                    self.judgeBoundary(place.*, self.reachAt(number), decider);
                    if (self.isIdle(place.*, number)) {
                        idle.append(memory, place.*) catch full();
                        break;
                    }
                }
            }
            for (idle.items) |group| self.forget(group);
        }

        fn judgeBoundary(self: *Self, group: *Group, reach: Reach, decider: Decider) void {
            const at = reach.current * self.rule.plan.every;
            const is_full = self.rule.plan.isQuantity() and group.first_at <= at - self.rule.plan.over;
            const windows: Windows = .{
                .judged = group.window(reach.first, reach.current + 1),
                .full = if (is_full) group.window(reach.first - 1, reach.current) else null,
                .baseline = self.baselineOf(group, reach),
                .boundary = true,
            };
            self.judge(group, &windows, decider, at, reach);
            self.dropSlices(group, reach);
        }

        fn dropSlices(self: *Self, group: *Group, reach: Reach) void {
            var place: usize = 0;
            while (place < group.slices.items.len) {
                const slice = group.slices.items[place];
                if (slice.tag.number >= reach.baseline_first) {
                    place += 1;
                    continue;
                }
                self.undo.append(memory, .{ .changed = .{ .group = group, .before = slice } }) catch full();
                self.removed(group, place);
            }
        }

        fn isIdle(self: *const Self, group: *const Group, number: i64) bool {
            if (group.episode != null) return false;
            if (self.rule.timing.ends_in_silence) return number * self.rule.plan.every - group.last_at >= self.rule.timing.no_data_after;
            return group.slices.items.len == 0;
        }

        fn forget(self: *Self, group: *Group) void {
            _ = self.groups.remove(group.key);
            self.forgetKey(group);
            for (group.slices.items) |*slice| {
                if (slice.tag.dirty) self.dirty -= 1;
                slice.tag.dirty = false;
                self.goes(group, slice.tag.number);
            }
            group.gone = true;
            self.undo.append(memory, .{ .forgotten = group }) catch full();
        }

        fn baselineOf(self: *const Self, group: *const Group, reach: Reach) ?lifecycle.Baseline {
            if (self.rule.plan.baseline_span == 0) return null;
            if (group.episode) |episode| return episode.baseline;
            const held = group.window(reach.baseline_first, reach.first);
            return .{ .sum = held.sum, .count = held.count };
        }

        /// Count the rows `segment`, between which stream time passes no boundary, group by group.
        fn count(self: *Self, rows: *const Rows, segment: []const i64, reach: Reach) void {
            const order = memory.alloc(u32, segment.len) catch full();
            defer memory.free(order);
            const members = memory.alloc(u32, segment.len) catch full();
            defer memory.free(members);
            const member_of = memory.alloc(u32, rows.key_count) catch full();
            defer memory.free(member_of);
            @memset(member_of, none);
            var ends: std.ArrayList(u32) = .empty;
            defer ends.deinit(memory);
            var kept: usize = 0;
            for (segment) |row_| {
                const row: usize = @intCast(row_);
                if (@divFloor(rows.ts[0..rows.count][row], self.rule.plan.every) < reach.baseline_first) {
                    self.counts.late += 1;
                    continue;
                }
                const member = &member_of[@intCast(rows.codes[0..rows.count][row])];
                if (member.* == none) {
                    member.* = @intCast(ends.items.len);
                    ends.append(memory, 0) catch full();
                }
                members[kept] = member.*;
                order[kept] = @intCast(row);
                kept += 1;
                ends.items[member.*] += 1;
            }
            var start: u32 = 0;
            for (ends.items) |*end| {
                const size = end.*;
                end.* = start;
                start += size;
            }
            const grouped = memory.alloc(u32, kept) catch full();
            defer memory.free(grouped);
            for (members[0..kept], order[0..kept]) |member, row| {
                grouped[ends.items[member]] = row;
                ends.items[member] += 1;
            }
            start = 0;
            for (ends.items) |end| {
                self.countGroup(rows, grouped[start..end], reach);
                start = end;
            }
        }

        const none = std.math.maxInt(u32);

        fn countGroup(self: *Self, rows: *const Rows, mine: []const u32, reach: Reach) void {
            const key = rows.key(@intCast(rows.codes[0..rows.count][mine[0]]));
            const group = self.groups.get(key) orelse new: {
                if (self.groups.count() >= self.rule.plan.max_groups) {
                    self.counts.overflow += @intCast(mine.len);
                    return;
                }
                const new = self.make(key, rows.time(mine[0]));
                self.undo.append(memory, .{ .created = new }) catch full();
                break :new new;
            };
            const before: Undo = .{ .times = .{ .group = group, .first_at = group.first_at, .last_at = group.last_at } };
            self.undo.append(memory, before) catch full();
            self.counts.judged += @intCast(mine.len);
            self.touched(group);
            self.advance(group, rows, mine, reach);
        }

        /// Count rows of `group`, and judge after each of them that may change something.
        fn advance(self: *Self, group: *Group, rows: *const Rows, mine: []const u32, reach: Reach) void {
            const last = rows.time(mine[mine.len - 1]);
            self.reduce(rows, mine);
            const before = group.window(reach.first, reach.current + 1);
            var inside: Aggregate = .{};
            var moves_baseline = false;
            for (self.added.items) |*slice| {
                if (reach.first <= slice.number and slice.number <= reach.current) inside.merge(&slice.held);
                if (slice.number < reach.first) moves_baseline = true;
            }
            const is_fixed = self.rule.plan.baseline_span == 0 or !moves_baseline;
            if (is_fixed and judging.cannotChange(&self.rule, group.episode, &before, &inside, self.baselineOf(group, reach), last)) {
                for (self.added.items) |*slice| self.add(group, slice.number, &slice.held);
            } else if (mine.len > self.rule.plan.block) {
                const size: usize = @intCast(self.rule.plan.block);
                var start: usize = 0;
                while (start < mine.len) : (start += size) {
                    self.advance(group, rows, mine[start..@min(start + size, mine.len)], reach);
                }
            } else self.walk(group, rows, mine, reach, before);
            group.last_at = last;
        }

        /// The rows `mine` as slices, in `added`.
        fn reduce(self: *Self, rows: *const Rows, mine: []const u32) void {
            self.added.items.len = 0;
            var place: usize = 0;
            for (mine) |row| {
                const number = @divFloor(rows.ts[0..rows.count][row], self.rule.plan.every);
                if (place >= self.added.items.len or self.added.items[place].number != number) {
                    place = for (self.added.items, 0..) |*slice, known| {
                        if (slice.number == number) break known;
                    } else new: {
                        self.added.append(memory, .{ .number = number, .held = .{} }) catch full();
                        break :new self.added.items.len - 1;
                    };
                }
                self.added.items[place].held.add(&rows.event(row));
            }
        }

        fn add(self: *Self, group: *Group, number: i64, held: *const Aggregate) void {
            const place = group.find(number) orelse {
                self.undo.append(memory, .{ .added = .{ .group = group, .number = number } }) catch full();
                return self.write(group, extended(group), .of_(number, held));
            };
            const slice = &group.slices.items[place];
            self.undo.append(memory, .{ .changed = .{ .group = group, .before = slice.* } }) catch full();
            var total = slice.aggregate();
            total.merge(held);
            self.write(group, slice, .of_(number, &total));
        }

        /// Count and judge the rows of one group one by one. `before` is its judged window without them.
        fn walk(self: *Self, group: *Group, rows: *const Rows, mine: []const u32, reach: Reach, before: Aggregate) void {
            var windows: Windows = .{ .judged = before, .full = null, .baseline = null, .boundary = false };
            for (mine) |row| {
                const event = rows.event(row);
                const number = @divFloor(rows.ts[0..rows.count][row], self.rule.plan.every);
                var one: Aggregate = .{};
                one.add(&event);
                self.add(group, number, &one);
                if (reach.first <= number and number <= reach.current) windows.judged.merge(&one);
                windows.baseline = self.baselineOf(group, reach);
                self.judge(group, &windows, rows.decider(row), rows.time(row), reach);
                group.last_at = rows.time(row);
            }
        }

        fn judge(self: *Self, group: *Group, windows: *const Windows, decider: Decider, at: i64, reach: Reach) void {
            const before = group.open();
            const levels = judging.verdicts(&self.rule, windows);
            const is_firing = if (before) |episode| episode.firing != null else false;
            const advanced = lifecycle.advance(before, &.{
                .at = at,
                .levels = levels,
                .recovered = if (is_firing) judging.recovered(&self.rule, windows, &levels) else .unknown,
                .boundary = windows.boundary,
                .silent_since = group.last_at,
            }, &self.rule.timing, .{ .offset = decider.offset, .index = decider.index, .opened_at = at }, windows.baseline);
            if (!std.meta.eql(before, advanced.episode)) self.become(group, advanced.episode);
            const told: struct { kind: Kind, level: usize } = switch (advanced.outcome) {
                .nothing => return,
                .fired => |level| .{ .kind = .fired, .level = level },
                .raised => |level| .{ .kind = .raised, .level = level },
                .recovered => .{ .kind = .recovered, .level = 0 },
                .no_data => .{ .kind = .no_data, .level = 0 },
            };
            const ends = told.kind == .recovered or told.kind == .no_data;
            var outcome = outcomeOf(group, if (ends) before.? else advanced.episode.?, told.kind, decider, at);
            outcome.level = @intCast(told.level);
            outcome.reach = reach;
            outcome.has_windows = 1;
            outcome.boundary = @intFromBool(windows.boundary);
            outcome.judged = .of_(&windows.judged);
            if (windows.full) |*known| {
                outcome.has_full = 1;
                outcome.full = .of_(known);
            }
            if (windows.baseline) |known| {
                outcome.has_baseline = 1;
                outcome.baseline_sum = .of(known.sum);
                outcome.baseline_count = known.count;
            }
            self.outcomes.append(memory, outcome) catch full();
        }

        fn outcomeOf(group: *const Group, episode: Episode, kind: Kind, decider: Decider, at: i64) Outcome {
            var outcome = std.mem.zeroes(Outcome);
            outcome.decider = decider;
            outcome.at = at;
            outcome.kind = kind;
            outcome.key = group.key.ptr;
            outcome.key_size = group.key.len;
            outcome.opening = .{
                .offset = episode.opening.offset,
                .index = episode.opening.index,
                .opened_at = episode.opening.opened_at,
            };
            outcome.rank = episode.firing.?.rank;
            outcome.ordinal = episode.firing.?.ordinal;
            return outcome;
        }

        fn become(self: *Self, group: *Group, episode: ?Episode) void {
            self.undo.append(memory, .{ .episode = .{ .group = group, .before = group.episode } }) catch full();
            group.episode = if (episode) |open_| copy(open_) else null;
            self.touched(group);
        }

        // --- rulesets ----------------------------------------------------------------------------------------------------

        /// Go on under another revision: `places` has for each of its levels the one that was that severity, or -1.
        fn replan(self: *Self, plan: *const Plan, places: []const i64, at: i64) void {
            self.settle();
            const reach = self.reachAt(@divFloor(at, self.rule.plan.every));
            var all = self.groups.valueIterator();
            while (all.next()) |place| {
                const group = place.*;
                self.dropSlices(group, reach);
                var episode = group.open() orelse continue;
                const since = episode.since;
                episode.since = @splat(null);
                for (places, 0..) |level, at_level| {
                    if (level >= 0) episode.since[at_level] = since[@intCast(level)];
                }
                self.become(group, episode);
            }
            self.rule = .of(plan);
        }

        /// Forget every group; what fired is to be told.
        fn finish(self: *Self, decider: Decider, at: i64) void {
            self.settle();
            var all = self.groups.valueIterator();
            while (all.next()) |place| {
                const episode = place.*.open() orelse continue;
                if (episode.firing == null) continue;
                self.outcomes.append(memory, outcomeOf(place.*, episode, .removed, decider, at)) catch full();
            }
            const left = memory.alloc(*Group, self.groups.count()) catch full();
            defer memory.free(left);
            all = self.groups.valueIterator();
            for (left) |*group| group.* = all.next().?.*;
            for (left) |group| self.forget(group);
        }
    };
}

/// There is no room: which says something about the machine, and nothing about what was folded.
fn full() noreturn {
    @panic("tocsin: out of memory");
}

/// The groups of a rule that measures a field, or of one that does not.
const Handle = union(enum) {
    counted: Groups(aggregates.Counted),
    valued: Groups(aggregates.Valued),
};

export fn tocsin_groups_new(plan: *const Plan, valued: bool) *Handle {
    const handle = memory.create(Handle) catch full();
    handle.* = if (valued) .{ .valued = .init(plan) } else .{ .counted = .init(plan) };
    return handle;
}

export fn tocsin_groups_free(handle: *Handle) void {
    switch (handle.*) {
        inline else => |*groups| groups.deinit(),
    }
    memory.destroy(handle);
}

/// Begin a step, which can be undone until the next one begins.
export fn tocsin_groups_begin(handle: *Handle) void {
    switch (handle.*) {
        inline else => |*groups| groups.settle(),
    }
}

/// Fold rows; returns how many outcomes there are.
export fn tocsin_groups_fold(handle: *Handle, rows: *const Rows, outcomes: *[*]const Outcome) usize {
    switch (handle.*) {
        inline else => |*groups| {
            const told = groups.outcomes.items.len;
            groups.fold(rows);
            return groups.after(told, outcomes);
        },
    }
}

/// Close the slices from `previous` to `current`; returns how many outcomes there are.
export fn tocsin_groups_close(handle: *Handle, previous: i64, current: i64, decider: *const Decider, outcomes: *[*]const Outcome) usize {
    switch (handle.*) {
        inline else => |*groups| {
            const told = groups.outcomes.items.len;
            groups.close(previous, current, decider.*);
            return groups.after(told, outcomes);
        },
    }
}

export fn tocsin_groups_end(handle: *Handle, decider: *const Decider, at: i64, outcomes: *[*]const Outcome) usize {
    switch (handle.*) {
        inline else => |*groups| {
            groups.finish(decider.*, at);
            return groups.after(0, outcomes);
        },
    }
}

export fn tocsin_groups_roll_back(handle: *Handle) void {
    switch (handle.*) {
        inline else => |*groups| groups.rollBack(),
    }
}

export fn tocsin_groups_replan(handle: *Handle, plan: *const Plan, places: [*]const i64, at: i64) void {
    switch (handle.*) {
        inline else => |*groups| groups.replan(plan, places[0..@intCast(plan.levels)], at),
    }
}

export fn tocsin_groups_count(handle: *const Handle) usize {
    return switch (handle.*) {
        inline else => |*groups| groups.groups.count(),
    };
}

/// About how many keys are to be written.
export fn tocsin_groups_dirty(handle: *const Handle) usize {
    return switch (handle.*) {
        inline else => |*groups| groups.dirty + groups.gone.count(),
    };
}

export fn tocsin_groups_take_counts(handle: *Handle, counts: *Counts) void {
    switch (handle.*) {
        inline else => |*groups| {
            counts.* = groups.counts;
            groups.counts = .{};
            groups.counts_before = .{};
        },
    }
}

/// Everything that changed since the last call, which is good until `tocsin_groups_release`.
export fn tocsin_groups_take(handle: *Handle, taken: *Taken) void {
    switch (handle.*) {
        inline else => |*groups| groups.take(taken),
    }
}

export fn tocsin_groups_release(handle: *Handle) void {
    switch (handle.*) {
        inline else => |*groups| groups.release(),
    }
}

/// Take over a group as it was taken; whether it could be read.
export fn tocsin_groups_restore_group(handle: *Handle, key: [*]const u8, key_size: usize, value: [*]const u8, value_size: usize) bool {
    return switch (handle.*) {
        inline else => |*groups| groups.restoreGroup(key[0..key_size], value[0..value_size]),
    };
}

/// Take over a slice, after its group; whether it could be read.
export fn tocsin_groups_restore_slice(handle: *Handle, key: [*]const u8, key_size: usize, number: i64, value: [*]const u8, value_size: usize) bool {
    return switch (handle.*) {
        inline else => |*groups| groups.restoreSlice(key[0..key_size], number, value[0..value_size]),
    };
}
