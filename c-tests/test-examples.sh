#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The two example servers, as their readers run them: started, used, and stopped by SIGTERM. Run in
# the project's root.
. c-tests/tap.sh
examples=build/examples
server=
clean_up() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

# eventually COMMAND...: true when it succeeds within ten seconds.
eventually() {
    local tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || return 1
        sleep 0.05
    done
}

connects() { (exec 3<>"/dev/tcp/127.0.0.1/$port"); }
is_gone() { ! kill -0 "$server"; }

# says LINE: send it on descriptor $1, and get it back.
says() {
    local back
    echo "$2" >&"$1" && read -r -t 10 back <&"$1" && [ "$back" = "$2" ]
}

# ends STATUS: SIGTERM ends the server, with this exit status.
ends() {
    kill -TERM "$server" && eventually is_gone || return 1
    wait "$server"
    local status=$?
    server=
    echo "exit status $status" >>"$work/why"
    [ $status -eq "$1" ]
}

# refuses STATUS COMMAND...: it ends at once with this exit status.
refuses() {
    local wanted=$1
    shift
    timeout 10 "$@" >"$work/why" 2>&1
    [ $? -eq "$wanted" ]
}

refuses 2 $examples/echo 70x && refuses 2 $examples/echo 0 && refuses 2 $examples/echo 65536 &&
    refuses 2 $examples/echo '' && refuses 2 $examples/echo 7007 7008
tap $? "echo refuses what is no port"

# It can't be told to choose a port: try until one is free.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    port=$((20000 + RANDOM % 12000))
    $examples/echo $port >"$work/why" 2>&1 &
    server=$!
    connects_or_ends() { connects || is_gone; }
    eventually connects_or_ends && kill -0 $server 2>/dev/null && break
    wait $server
    server=
done
[ -n "$server" ]
tap $? "echo starts"
refuses 1 $examples/echo $port && grep -q 'in use' "$work/why"
tap $? "echo says when its port is taken"

exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$port" 2>/dev/null
says 3 one && says 4 two && says 3 three
tap $? "echo answers two clients"
exec 4<&-
says 3 four
tap $? "echo goes on when one has gone"
ends 0
tap $? "echo ends on SIGTERM with exit status 0"
read -r -t 10 line <&3
[ $? -eq 1 ] # the end, and not the time
tap $? "echo has closed the connection that was idle"
exec 3<&-

refuses 2 $examples/httpd && refuses 2 $examples/httpd -p 1x . &&
    refuses 2 $examples/httpd -t 0 . && refuses 2 $examples/httpd "$work/nothing"
tap $? "httpd refuses bad arguments"

mkdir "$work/root"
echo 'It works' >"$work/root/index.html"
$examples/httpd -p 0 -t 2 "$work/root" >"$work/out" 2>"$work/why" &
server=$!
eventually grep -q '^listening on ' "$work/out"
tap $? "httpd starts"
port=$(sed -n 's/^listening on .*://p' "$work/out")

# get PATH: the whole answer.
get() {
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3
    timeout 10 cat <&3 | tee "$work/why"
    exec 3<&-
}
get / | grep -q '^It works$' && grep -q '^HTTP/1.1 200 OK' "$work/why"
tap $? "httpd serves a file"
get /nothing | grep -q '^HTTP/1.1 404 '
tap $? "httpd says when there is none"
get /status | grep -q '"requests": 3'
tap $? "httpd counts"
exec 3<>"/dev/tcp/127.0.0.1/$port"
ends 0
tap $? "httpd ends on SIGTERM with exit status 0, an idle connection open"
exec 3<&-
grep -q 'descriptors left open: 0$' "$work/out"
tap $? "httpd has closed every descriptor"

echo "1..$count"
