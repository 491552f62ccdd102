// SPDX-License-Identifier: GPL-3.0-or-later
//! nunc-stans for Zig: the C header, translated by the compiler, and over it errors, methods and callbacks with a
//! type. The rules of ownership are C's: nunc-stans.h says what each call asks for.

const std = @import("std");

/// The header itself.
pub const c = @cImport({
    @cDefine("NS_NO_NSPR", "1");
    @cDefine("NS_EXTENDED_RESULTS", "1");
    @cInclude("nunc-stans.h");
});

/// The results of the library, but success, under their names.
pub const Error = error{
    Shutdown,
    AllocationFailure,
    InvalidRequest,
    InvalidState,
    ThreadFailure,
    Deleting,
    Timeout,
    Running,
    Overloaded,
    /// A result of a later version.
    Unknown,
};

/// A result of the library's as an error.
pub fn check(code: c.ns_result_t) Error!void {
    return switch (code) {
        c.NS_SUCCESS => {},
        c.NS_SHUTDOWN => Error.Shutdown,
        c.NS_ALLOCATION_FAILURE => Error.AllocationFailure,
        c.NS_INVALID_REQUEST => Error.InvalidRequest,
        c.NS_INVALID_STATE => Error.InvalidState,
        c.NS_THREAD_FAILURE => Error.ThreadFailure,
        c.NS_DELETING => Error.Deleting,
        c.NS_TIMEOUT => Error.Timeout,
        c.NS_RUNNING => Error.Running,
        c.NS_OVERLOADED => Error.Overloaded,
        else => Error.Unknown,
    };
}

/// Nanoseconds as a time for C, rounded up.
fn time(ns: u64) c.struct_timeval {
    const us = ns / std.time.ns_per_us + @intFromBool(ns % std.time.ns_per_us != 0);
    return .{ .tv_sec = @intCast(us / std.time.us_per_s), .tv_usec = @intCast(us % std.time.us_per_s) };
}

/// How a job runs. By default once, in a worker; its descriptor is closed when the job is gone.
pub const How = struct {
    /// In the loop, where nothing may block.
    in_loop: bool = false,
    /// Armed again whenever its callback returns.
    persist: bool = false,
    /// A timer that persists, at multiples of its time.
    cadence: bool = false,
    /// Its descriptor stays open.
    keep_open: bool = false,
    /// Made, but not armed: set its group or done callback, then rearm() it.
    unarmed: bool = false,

    fn flags(how: How) c.ns_job_type_t {
        var bits: c.ns_job_type_t = 0;
        if (!how.in_loop) bits |= c.NS_JOB_THREAD;
        if (how.persist) bits |= c.NS_JOB_PERSIST;
        if (how.cadence) bits |= c.NS_JOB_PERSIST | c.NS_JOB_CADENCE;
        if (how.keep_open) bits |= c.NS_JOB_PRESERVE_FD;
        if (how.unarmed) bits |= c.NS_JOB_UNARMED;
        return bits;
    }
};

/// What a job waits for on its descriptor.
pub const Interest = enum(c.ns_job_type_t) {
    read = c.NS_JOB_READ,
    write = c.NS_JOB_WRITE,
    both = c.NS_JOB_READ | c.NS_JOB_WRITE,
};

/// A callback, and the data that it gets: `on(&connection, Connection.serve)`, where `serve` is
/// `fn (*Connection, Job) void`. It becomes a C function when it is compiled; nothing is allocated.
pub const Callback = struct {
    func: c.ns_job_func_t,
    data: ?*anyopaque,
};

pub fn on(data: anytype, comptime function: fn (@TypeOf(data), Job) void) Callback {
    const Data = @TypeOf(data);
    const Wrapped = struct {
        fn call(raw: ?*c.ns_job_t) callconv(.c) void {
            const pointer: Data = @ptrCast(@alignCast(c.ns_job_get_data(raw).?));
            function(pointer, .{ .raw = raw.? });
        }
    };
    return .{ .func = Wrapped.call, .data = @ptrCast(@constCast(data)) };
}

/// A job. As in C: no call after done() or cancel(), but in its own callback.
pub const Job = struct {
    raw: *c.ns_job_t,

    pub fn readable(job: Job) bool {
        return c.ns_job_get_output_type(job.raw) & c.NS_JOB_READ != 0;
    }
    pub fn writable(job: Job) bool {
        return c.ns_job_get_output_type(job.raw) & c.NS_JOB_WRITE != 0;
    }
    pub fn timedOut(job: Job) bool {
        return c.ns_job_get_output_type(job.raw) & c.NS_JOB_TIMER != 0;
    }
    pub fn fd(job: Job) std.posix.fd_t {
        return c.ns_job_get_native_fd(job.raw);
    }
    /// Arm it again; in its callback, for when that returns.
    pub fn rearm(job: Job) Error!void {
        return check(c.ns_job_rearm(job.raw));
    }
    /// The same, for other directions (null: as before) and another time (null: as before; 0: on a descriptor none).
    pub fn rearmFor(job: Job, interest: ?Interest, ns: ?u64) Error!void {
        const tv = time(ns orelse 0);
        const directions = if (interest) |it| @intFromEnum(it) else 0;
        return check(c.ns_job_rearm_for(job.raw, directions, if (ns == null) null else &tv));
    }
    /// The same, but it begins to watch only when a time has passed.
    pub fn rearmAfter(job: Job, ns: u64) Error!void {
        const tv = time(ns);
        return check(c.ns_job_rearm_after(job.raw, &tv));
    }
    /// Finish with it: idle, or in its callback.
    pub fn done(job: Job) void {
        _ = c.ns_job_done(job.raw);
    }
    /// Finish with it, whatever its state. error.Running: a run is in progress on another thread, and is the last.
    pub fn cancel(job: Job) Error!void {
        return check(c.ns_job_cancel(job.raw));
    }
    /// Called last, when its descriptor is closed: where its data is freed. For a job that is not armed.
    pub fn whenGone(job: Job, comptime Data: type, comptime function: fn (*Data, Job) void) Error!void {
        const at: *Data = @ptrCast(@alignCast(c.ns_job_get_data(job.raw).?));
        return check(c.ns_job_set_done_cb(job.raw, on(at, function).func));
    }
    pub fn setGroup(job: Job, group: Group) Error!void {
        return check(c.ns_job_set_group(job.raw, group.raw));
    }
};

/// How to make a pool.
pub const Options = struct {
    workers: usize = 1,
    name: ?[*:0]const u8 = null,
    framework: ?[*:0]const u8 = null,
    queue_limit: usize = 0,
    /// No loop thread: who calls run() or turn() is the loop meanwhile.
    caller_loop: bool = false,
};

pub const Pool = struct {
    raw: *c.ns_thrpool_t,

    /// error.InvalidRequest: the log says what was wrong.
    pub fn init(options: Options) Error!Pool {
        var config: c.struct_ns_thrpool_config = undefined;
        c.ns_thrpool_config_init(&config);
        config.max_threads = options.workers;
        var more: c.struct_ns_thrpool_options = undefined;
        c.ns_thrpool_options_init(&more, @sizeOf(c.struct_ns_thrpool_options));
        more.name = options.name;
        more.framework = options.framework;
        more.queue_limit = options.queue_limit;
        more.flags = if (options.caller_loop) c.NS_POOL_CALLER_LOOP else 0;
        return .{ .raw = c.ns_thrpool_new_with(&config, &more) orelse return Error.InvalidRequest };
    }
    /// Shut down, wait, and end every job that the pool still holds. Idle jobs are to be done() before.
    pub fn deinit(pool: Pool) void {
        c.ns_thrpool_destroy(pool.raw);
    }
    pub fn shutdown(pool: Pool) void {
        c.ns_thrpool_shutdown(pool.raw);
    }
    /// Until it is shut down, and no callback runs any more.
    pub fn wait(pool: Pool) Error!void {
        return check(c.ns_thrpool_wait(pool.raw));
    }
    /// With caller_loop: be the loop until the pool is quiet.
    pub fn run(pool: Pool) Error!void {
        return check(c.ns_thrpool_run(pool.raw));
    }
    /// Be the loop for one turn. error.Timeout: there was nothing to do.
    pub fn turn(pool: Pool, ns: ?u64) Error!void {
        const tv = time(ns orelse 0);
        return check(c.ns_thrpool_turn(pool.raw, if (ns == null) null else &tv));
    }
    /// Polls readable when a turn would find something to do; -1 without caller_loop.
    pub fn waitFd(pool: Pool) std.posix.fd_t {
        return c.ns_thrpool_get_wait_fd(pool.raw);
    }

    /// Run a callback as soon as a thread is free. It has to be done() or rearmed.
    pub fn add(pool: Pool, how: How, call: Callback) Error!Job {
        var raw: ?*c.ns_job_t = null;
        try check(c.ns_add_job(pool.raw, how.flags(), call.func, call.data, &raw));
        return .{ .raw = raw.? };
    }
    pub fn after(pool: Pool, ns: u64, how: How, call: Callback) Error!Job {
        var raw: ?*c.ns_job_t = null;
        var tv = time(ns);
        try check(c.ns_add_timeout_job(pool.raw, &tv, how.flags(), call.func, call.data, &raw));
        return .{ .raw = raw.? };
    }
    /// When a descriptor is ready, or the time (0: none) is up.
    pub fn onIo(pool: Pool, fd: std.posix.fd_t, interest: Interest, ns: u64, how: How, call: Callback) Error!Job {
        var raw: ?*c.ns_job_t = null;
        var tv = time(ns);
        const flags = how.flags() | @intFromEnum(interest);
        try check(c.ns_add_fd_timeout_job(pool.raw, fd, &tv, flags, call.func, call.data, &raw));
        return .{ .raw = raw.? };
    }
    pub fn onSignal(pool: Pool, number: i32, how: How, call: Callback) Error!Job {
        var raw: ?*c.ns_job_t = null;
        try check(c.ns_add_signal_job(pool.raw, number, how.flags(), call.func, call.data, &raw));
        return .{ .raw = raw.? };
    }
    /// A group, of whose jobs at most `width` run at once, in order; 0: no limit and no order.
    pub fn group(pool: Pool, width: usize) Error!Group {
        var raw: ?*c.ns_group_t = null;
        try check(c.ns_group_new(pool.raw, width, null, null, &raw));
        return .{ .raw = raw.? };
    }
};

pub const Group = struct {
    raw: *c.ns_group_t,

    /// Give it back: it is gone when its jobs are.
    pub fn release(group: Group) void {
        c.ns_group_release(group.raw);
    }
    pub fn add(group: Group, how: How, call: Callback) Error!Job {
        var raw: ?*c.ns_job_t = null;
        try check(c.ns_add_group_job(group.raw, how.flags(), call.func, call.data, &raw));
        return .{ .raw = raw.? };
    }
    /// Finish with all its jobs. error.Running: some callbacks run on other threads, and are the last.
    pub fn cancel(group: Group) Error!void {
        return check(c.ns_group_cancel(group.raw));
    }
    /// Until none of its jobs is armed, queued or running; null: without limit.
    pub fn wait(group: Group, ns: ?u64) Error!void {
        const tv = time(ns orelse 0);
        return check(c.ns_group_wait(group.raw, if (ns == null) null else &tv));
    }
    pub fn suspendJobs(group: Group) Error!void {
        return check(c.ns_group_suspend(group.raw));
    }
    pub fn resumeJobs(group: Group) Error!void {
        return check(c.ns_group_resume(group.raw));
    }
    pub fn setLimit(group: Group, most: usize) Error!void {
        return check(c.ns_group_set_limit(group.raw, most));
    }
    pub fn isCurrent(group: Group) bool {
        return c.ns_group_is_current(group.raw) != 0;
    }
};
