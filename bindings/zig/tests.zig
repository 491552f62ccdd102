// SPDX-License-Identifier: GPL-3.0-or-later
//! Pools, jobs and groups from Zig, on real sockets, timers and signals.

const std = @import("std");
const ns = @import("nunc_stans.zig");
const posix = std.posix;
const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;
const expectError = std.testing.expectError;

/// Far more than anything here takes, under valgrind too.
const long = 60 * std.time.ns_per_s;
const ms = std.time.ns_per_ms;

/// A number that callbacks raise, and tests wait for.
const Count = struct {
    mutex: std.Thread.Mutex = .{},
    changed: std.Thread.Condition = .{},
    n: usize = 0,

    fn up(count: *Count) void {
        count.mutex.lock();
        defer count.mutex.unlock();
        count.n += 1;
        count.changed.broadcast();
    }
    fn get(count: *Count) usize {
        count.mutex.lock();
        defer count.mutex.unlock();
        return count.n;
    }
    fn wait(count: *Count, n: usize) !void {
        count.mutex.lock();
        defer count.mutex.unlock();
        while (count.n < n) try count.changed.timedWait(&count.mutex, long);
    }
    fn upAndDone(count: *Count, job: ns.Job) void {
        job.done();
        count.up();
    }
};

test "what is posted runs, where it is told" {
    const Place = struct {
        count: Count = .{},
        loop: std.Thread.Id = 0,
        worker: std.Thread.Id = 0,

        fn inLoop(place: *@This(), job: ns.Job) void {
            place.loop = std.Thread.getCurrentId();
            Count.upAndDone(&place.count, job);
        }
        fn inWorker(place: *@This(), job: ns.Job) void {
            place.worker = std.Thread.getCurrentId();
            Count.upAndDone(&place.count, job);
        }
    };
    const pool = try ns.Pool.init(.{ .workers = 1, .name = "zig" });
    defer pool.deinit();
    var place = Place{};
    for (0..1000) |_| {
        _ = try pool.add(.{ .in_loop = true }, ns.on(&place, Place.inLoop));
        _ = try pool.add(.{}, ns.on(&place, Place.inWorker));
    }
    pool.shutdown();
    try expectError(ns.Error.Shutdown, pool.add(.{}, ns.on(&place, Place.inWorker)));
    try pool.wait();
    try expectEqual(2000, place.count.get());
    try expect(place.loop != 0 and place.worker != 0 and place.loop != place.worker);
    try expect(place.loop != std.Thread.getCurrentId());
}

/// A connection that is freed when its job is gone.
const Connection = struct {
    count: *Count,
    allocator: std.mem.Allocator,

    fn serve(_: *Connection, job: ns.Job) void {
        var bytes: [256]u8 = undefined;
        const n = posix.read(job.fd(), &bytes) catch 0;
        if (n == 0) return job.done();
        _ = posix.write(job.fd(), bytes[0..n]) catch return job.done();
    }
    fn gone(connection: *Connection, _: ns.Job) void {
        const count = connection.count;
        connection.allocator.destroy(connection);
        count.up();
    }
};

const Listener = struct {
    pool: ns.Pool,
    gone: Count = .{},

    fn accept(listener: *Listener, job: ns.Job) void {
        const fd = posix.accept(job.fd(), null, null, posix.SOCK.CLOEXEC) catch unreachable;
        const connection = std.testing.allocator.create(Connection) catch unreachable;
        connection.* = .{ .count = &listener.gone, .allocator = std.testing.allocator };
        const how = ns.How{ .persist = true, .unarmed = true };
        const client = listener.pool.onIo(fd, .read, long, how, ns.on(connection, Connection.serve)) catch unreachable;
        client.whenGone(Connection, Connection.gone) catch unreachable;
        client.rearm() catch client.done();
    }
};

test "an echo server, whose connections are freed with their jobs" {
    const fd = try posix.socket(posix.AF.INET, posix.SOCK.STREAM | posix.SOCK.CLOEXEC, 0);
    var address = try std.net.Address.parseIp4("127.0.0.1", 0);
    try posix.bind(fd, &address.any, address.getOsSockLen());
    try posix.listen(fd, 64);
    var size = address.getOsSockLen();
    try posix.getsockname(fd, &address.any, &size);

    const pool = try ns.Pool.init(.{ .workers = 2 });
    var listener = Listener{ .pool = pool };
    _ = try pool.onIo(fd, .read, 0, .{ .in_loop = true, .persist = true }, ns.on(&listener, Listener.accept));
    var clients: [20]posix.fd_t = undefined;
    for (&clients) |*client| {
        client.* = try posix.socket(posix.AF.INET, posix.SOCK.STREAM | posix.SOCK.CLOEXEC, 0);
        try posix.connect(client.*, &address.any, size);
    }
    for (0..50) |round| for (clients, 0..) |client, i| {
        var out: [32]u8 = undefined;
        var in: [32]u8 = undefined;
        const text = try std.fmt.bufPrint(&out, "client {d} round {d}", .{ i, round });
        try expectEqual(text.len, try posix.write(client, text));
        var n: usize = 0;
        while (n < text.len) n += try posix.read(client, in[n..]);
        try std.testing.expectEqualStrings(text, in[0..n]);
    };
    for (clients[0..10]) |client| posix.close(client);
    try listener.gone.wait(10);
    pool.deinit(); // and the other ten, which are armed
    try expectEqual(20, listener.gone.get());
    var byte: [1]u8 = undefined;
    for (clients[10..]) |client| {
        try expectEqual(0, try posix.read(client, &byte));
        posix.close(client);
    }
}

test "timers fire, never early, again, and later" {
    const Timer = struct {
        count: Count = .{},
        begun: std.time.Timer,
        early: bool = false,

        fn fired(timer: *@This(), job: ns.Job) void {
            timer.early = timer.early or timer.begun.read() < (timer.count.get() + 1) * 5 * ms;
            switch (timer.count.get()) {
                0 => job.rearm() catch unreachable,
                1 => job.rearmFor(null, 6 * ms) catch unreachable,
                2 => job.rearmAfter(5 * ms) catch unreachable,
                else => job.done(),
            }
            timer.count.up();
        }
    };
    const pool = try ns.Pool.init(.{});
    defer pool.deinit();
    var timer = Timer{ .begun = try std.time.Timer.start() };
    _ = try pool.after(5 * ms, .{}, ns.on(&timer, Timer.fired));
    try timer.count.wait(4);
    try expect(!timer.early);

    // At multiples of a time, until it is cancelled; and one that never fires.
    const Tick = struct {
        fn tick(count: *Count, _: ns.Job) void {
            count.up();
        }
    };
    var ticks = Count{};
    const clock = try pool.after(ms, .{ .cadence = true, .in_loop = true }, ns.on(&ticks, Tick.tick));
    try ticks.wait(5);
    clock.cancel() catch |err| try expectEqual(ns.Error.Running, err);
    _ = try pool.after(std.math.maxInt(u64), .{}, ns.on(&ticks, Tick.tick));
}

test "a group runs one at a time, in order" {
    const Strand = struct {
        group: ns.Group,
        inside: std.atomic.Value(bool) = .init(false),
        seen: usize = 0,
        wrong: bool = false,

        const Step = struct { strand: *Strand, number: usize };
        const Strand = @This();
        fn run(step: *Step, job: ns.Job) void {
            const strand = step.strand;
            if (strand.inside.swap(true, .seq_cst) or step.number != strand.seen) strand.wrong = true;
            if (!strand.group.isCurrent()) strand.wrong = true;
            strand.seen += 1;
            strand.inside.store(false, .seq_cst);
            job.done();
        }
    };
    const pool = try ns.Pool.init(.{ .workers = 4 });
    defer pool.deinit();
    var strand = Strand{ .group = try pool.group(1) };
    var steps: [2000]Strand.Step = undefined;
    for (&steps, 0..) |*step, i| {
        step.* = .{ .strand = &strand, .number = i };
        _ = try strand.group.add(.{ .in_loop = i % 7 == 0 }, ns.on(step, Strand.run));
    }
    try strand.group.wait(long);
    try expectEqual(steps.len, strand.seen);
    try expect(!strand.wrong);

    var count = Count{};
    try strand.group.suspendJobs();
    try strand.group.setLimit(2);
    for (0..2) |_| _ = try strand.group.add(.{}, ns.on(&count, Count.upAndDone));
    try expectError(ns.Error.Overloaded, strand.group.add(.{}, ns.on(&count, Count.upAndDone)));
    try expectError(ns.Error.Timeout, strand.group.wait(ms));
    try strand.group.resumeJobs();
    try strand.group.wait(long);
    try expectEqual(2, count.get());
    const late = try pool.after(long, .{ .unarmed = true }, ns.on(&count, Count.upAndDone));
    try late.setGroup(strand.group);
    try late.rearm();
    try strand.group.cancel();
    try expectError(ns.Error.Deleting, strand.group.add(.{}, ns.on(&count, Count.upAndDone)));
    strand.group.release();
    try expectEqual(2, count.get());
}

test "SIGTERM is a job" {
    const Stop = struct {
        fn stop(pool: *ns.Pool, job: ns.Job) void {
            job.done();
            pool.shutdown();
        }
    };
    var pool = try ns.Pool.init(.{});
    defer pool.deinit();
    _ = try pool.onSignal(posix.SIG.TERM, .{}, ns.on(&pool, Stop.stop));
    try posix.kill(std.os.linux.getpid(), posix.SIG.TERM);
    try pool.wait();
    try expectError(ns.Error.InvalidRequest, blk: {
        const other = try ns.Pool.init(.{});
        defer other.deinit();
        break :blk other.onSignal(posix.SIG.KILL, .{}, ns.on(&pool, Stop.stop));
    });
}

test "the loop in the caller's thread" {
    const Here = struct {
        thread: std.Thread.Id,
        ran: usize = 0,
        fn run(here: *@This(), job: ns.Job) void {
            if (here.thread == std.Thread.getCurrentId()) here.ran += 1;
            job.done();
        }
    };
    const pool = try ns.Pool.init(.{ .workers = 0, .caller_loop = true });
    defer pool.deinit();
    var here = Here{ .thread = std.Thread.getCurrentId() };
    _ = try pool.add(.{ .in_loop = true }, ns.on(&here, Here.run));
    var polled = [_]posix.pollfd{.{ .fd = pool.waitFd(), .events = posix.POLL.IN, .revents = 0 }};
    try expectEqual(1, try posix.poll(&polled, 0));
    while (pool.turn(0)) {} else |err| try expectEqual(ns.Error.Timeout, err);
    try expectEqual(1, here.ran);
    try expectEqual(0, try posix.poll(&polled, 0));
    _ = try pool.after(ms, .{ .in_loop = true }, ns.on(&here, Here.run));
    try pool.turn(null);
    pool.shutdown();
    try pool.run();
    try expectError(ns.Error.Shutdown, pool.turn(null));
    try expect(here.ran <= 2);
}
