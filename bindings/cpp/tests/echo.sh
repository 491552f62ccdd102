#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# echo.sh PROGRAM: it sends back what it gets from many clients at once, and ends on SIGTERM with status 0.
port=$((20000 + $$ % 20000))
"$1" $port &
server=$!
trap 'kill -9 $server 2>/dev/null' EXIT
python3 - $port <<'PY' || exit 1
import socket, sys, threading, time
for _ in range(200):
    try:
        clients = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(50)]
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
data = bytes(range(256)) * 2000
def talk(client):
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    back = b""
    while len(back) < len(data):
        back += client.recv(1 << 16)
    sender.join()
    assert back == data
    answered.append(client)
answered = []
threads = [threading.Thread(target=talk, args=(client,)) for client in clients]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(answered) == 50
PY
kill -TERM $server
wait $server
status=$?
trap - EXIT
exit $status
