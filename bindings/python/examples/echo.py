# SPDX-License-Identifier: GPL-3.0-or-later
"""echo.py [port] - sends back what TCP clients send, on 127.0.0.1, until SIGTERM or Ctrl-C."""

import signal
import socket
import sys

import nunc_stans as ns


def serve(job: ns.Job, client: socket.socket) -> None:
    """In a worker, which may block: another client's run meanwhile in the others."""
    try:
        data = b"" if job.timed_out else client.recv(65536)
        client.sendall(data)
    except OSError:
        data = b""
    if not data:
        job.cancel()
        client.close()


def accept(job: ns.Job, listener: socket.socket, pool: ns.Pool) -> None:
    try:
        client, _ = listener.accept()
        client.setblocking(True)
        pool.on_readable(client, lambda job: serve(job, client), timeout=30, persist=True)
    except BlockingIOError:
        pass


with ns.Pool(workers=4) as pool, socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 7007))
    listener.listen(128)
    listener.setblocking(False)
    pool.on_readable(listener, lambda job: accept(job, listener, pool), loop=True, persist=True)
    pool.on_signal(signal.SIGTERM, lambda job: pool.shutdown())
    try:
        pool.wait()
    except KeyboardInterrupt:
        pass
