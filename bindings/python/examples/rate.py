# SPDX-License-Identifier: GPL-3.0-or-later
"""rate.py [connections [seconds]] - round trips a second of examples/echo.py, which it starts."""

import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def main(connections: int, seconds: float) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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
    return trips / (now - begin)


if __name__ == "__main__":
    numbers = [float(argument) for argument in sys.argv[1:]] + [32, 3][len(sys.argv) - 1 :]
    print(f"{main(int(numbers[0]), numbers[1]):.0f} round trips a second over {int(numbers[0])} connections")
