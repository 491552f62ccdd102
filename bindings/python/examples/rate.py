# SPDX-License-Identifier: GPL-3.0-or-later
"""rate.py [connections [seconds]] - round trips a second of examples/echo.py, which it starts: by the clock, and by
the processor time of the server, which other load on the machine hardly changes."""

import resource
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def main(connections: int, seconds: float) -> tuple[float, float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    server = subprocess.Popen([sys.executable, str(Path(__file__).with_name("echo.py")), str(port)])
    clients: dict[int, socket.socket] = {}
    while len(clients) < connections:
        try:
            client = socket.create_connection(("127.0.0.1", port))
            clients[client.fileno()] = client
        except ConnectionRefusedError:
            time.sleep(0.05)
    poll = select.epoll()
    for fd, client in clients.items():
        poll.register(fd, select.EPOLLIN)
        client.send(b"round trip")
    trips = 0
    begin = time.monotonic()
    while (now := time.monotonic()) < begin + seconds:
        for fd, _ in poll.poll(1):
            assert clients[fd].recv(100) == b"round trip"
            clients[fd].send(b"round trip")
            trips += 1
    for client in clients.values():
        client.close()
    server.send_signal(signal.SIGTERM)
    if server.wait(20) != 0:
        raise SystemExit(f"the server ended with {server.returncode}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return trips / (now - begin), trips / processor


if __name__ == "__main__":
    numbers = [float(argument) for argument in sys.argv[1:]] + [32, 3][len(sys.argv) - 1 :]
    clock, processor = main(int(numbers[0]), numbers[1])
    print(f"{clock:.0f} round trips a second, {processor:.0f} for each second of the server's processor time")
