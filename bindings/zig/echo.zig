// SPDX-License-Identifier: GPL-3.0-or-later
//! An echo server on 127.0.0.1: echo PORT. It ends on SIGTERM.

const std = @import("std");
const ns = @import("nunc_stans.zig");
const posix = std.posix;

const Server = struct {
    pool: ns.Pool,

    fn accept(server: *Server, job: ns.Job) void {
        const fd = posix.accept(job.fd(), null, null, posix.SOCK.CLOEXEC) catch {
            // Out of descriptors, most likely: rest, rather than spin.
            job.rearmAfter(100 * std.time.ns_per_ms) catch {};
            return;
        };
        const call = ns.on(server, serve);
        _ = server.pool.onIo(fd, .read, 30 * std.time.ns_per_s, .{ .persist = true }, call) catch posix.close(fd);
    }

    fn serve(_: *Server, job: ns.Job) void {
        var bytes: [4096]u8 = undefined;
        const n = if (job.timedOut()) 0 else posix.read(job.fd(), &bytes) catch 0;
        if (n == 0) return job.done(); // closes the descriptor
        var sent: usize = 0;
        while (sent < n)
            sent += posix.send(job.fd(), bytes[sent..n], posix.MSG.NOSIGNAL) catch return job.done();
    }

    fn stop(server: *Server, job: ns.Job) void {
        job.done();
        server.pool.shutdown();
    }
};

pub fn main() !void {
    var arguments = std.process.args();
    _ = arguments.next();
    const port = try std.fmt.parseInt(u16, arguments.next() orelse "7007", 10);

    const listener = try posix.socket(posix.AF.INET, posix.SOCK.STREAM | posix.SOCK.CLOEXEC, 0);
    try posix.setsockopt(listener, posix.SOL.SOCKET, posix.SO.REUSEADDR, &std.mem.toBytes(@as(c_int, 1)));
    const address = try std.net.Address.parseIp4("127.0.0.1", port);
    try posix.bind(listener, &address.any, address.getOsSockLen());
    try posix.listen(listener, 128);

    var server = Server{ .pool = try ns.Pool.init(.{ .workers = 2 }) };
    defer server.pool.deinit();
    const in_loop = ns.How{ .in_loop = true, .persist = true };
    _ = try server.pool.onIo(listener, .read, 0, in_loop, ns.on(&server, Server.accept));
    _ = try server.pool.onSignal(posix.SIG.TERM, .{}, ns.on(&server, Server.stop));
    try server.pool.wait();
}
