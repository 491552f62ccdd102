#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The example servers, as their readers run them: started, used, and stopped by SIGTERM. Run in
# the project's root.
. c-tests/tap.sh
examples=build/examples
server=
clean_up() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

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

# starts COMMAND...: run a server that takes its port as its next argument, and can't be told to
# choose one: try until one is free. OPTIONS are the arguments behind the port.
starts() {
    local _
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        port=$((20000 + RANDOM % 12000))
        # shellcheck disable=SC2086 # a list of words
        "$@" $port $OPTIONS >"$work/why" 2>&1 &
        server=$!
        eventually is_up_or_gone && kill -0 $server 2>/dev/null && return 0
        wait $server
        server=
    done
    return 1
}
is_up_or_gone() { connects || is_gone; }

# ticks: the processor time that the server has used, in hundredths of a second.
ticks() { sed 's/.*) //' "/proc/$server/stat" | awk '{ print $12 + $13 }'; }

# is_stuck PID: it is alive, and has written something, but nothing more for half a second.
is_stuck() {
    local before after
    before=$(sed -n 's/^wchar: //p' "/proc/$1/io") && [ "$before" -gt 0 ] && sleep 0.5 &&
        after=$(sed -n 's/^wchar: //p' "/proc/$1/io") && [ "$before" = "$after" ]
}

refuses 2 $examples/echo 70x && refuses 2 $examples/echo 0 && refuses 2 $examples/echo 65536 &&
    refuses 2 $examples/echo '' && refuses 2 $examples/echo 7007 0 &&
    refuses 2 $examples/echo 7007 60 60 && refuses 2 $examples/udp-echo 7007 7008
tap $? "echo refuses what is no port or time"

OPTIONS=
starts $examples/echo
tap $? "echo starts"
refuses 1 $examples/echo $port && grep -q 'in use' "$work/why"
tap $? "echo says when its port is taken"

exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$port" 2>/dev/null
says 3 one && says 4 two && says 3 three
tap $? "echo answers two clients"

# It has one worker. More is sent than the buffers of both sockets take.
cat /dev/zero >&4 &
sender=$!
eventually is_stuck $sender && says 3 four
tap $? "echo answers one client while another does not read"
kill $sender
wait $sender 2>/dev/null
exec 4<&-
says 3 five
tap $? "echo goes on when one has gone"

head -c 1000000 /dev/urandom >"$work/sent"
cat "$work/sent" >&3 &
timeout 30 head -c 1000000 <&3 >"$work/got"
cmp "$work/sent" "$work/got" >"$work/why" 2>&1
tap $? "echo sends a megabyte back whole"

ends 0
tap $? "echo ends on SIGTERM with exit status 0"
read -r -t 10 line <&3
[ $? -eq 1 ] # the end, and not the time
tap $? "echo has closed the connection that was idle"
exec 3<&-

OPTIONS=1
starts $examples/echo
exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$port"
cat /dev/zero >&4 2>/dev/null &
sender=$!
says 3 one
read -r -t 10 line <&3
[ $? -eq 1 ]
tap $? "echo drops a client that is silent for the idle time"
sender_is_gone() { ! kill -0 $sender; }
eventually sender_is_gone
tap $? "echo drops a client that does not read for the idle time"
wait $sender
exec 3<&- 4<&-
ends 0
tap $? "echo ends when its clients were dropped"

# 14 clients and a limit of 16 descriptors: some find no place.
OPTIONS=
starts bash -c "ulimit -n 16 && exec $examples/echo \"\$@\"" few
clients=()
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do
    exec {client}<>"/dev/tcp/127.0.0.1/$port" && clients+=("$client")
done
first=${clients[0]} last=${clients[13]}
says "$first" one && echo two >&"$last" && ! read -r -t 1 line <&"$last"
tap $? "echo takes no more clients than it has descriptors"
before=$(ticks)
sleep 1
used=$(($(ticks) - before))
echo "used $used hundredths of a second" >"$work/why"
[ $used -lt 10 ] && says "$first" three
tap $? "echo rests meanwhile, and answers those that it has"
for client in "${clients[@]:0:13}"; do
    exec {client}<&-
done
read -r -t 10 line <&"$last" && [ "$line" = two ] && says "$last" four
tap $? "echo takes the others when descriptors are free again"
exec {last}<&-
ends 0
tap $? "echo ends after that"

# It listens to datagrams, which come or do not: ask until there is an answer.
port=$((20000 + RANDOM % 12000))
$examples/udp-echo $port >"$work/why" 2>&1 &
server=$!
exec 3<>"/dev/udp/127.0.0.1/$port"
answers() { echo hello >&3 && [ "$(timeout 1 head -c 6 <&3)" = hello ]; } # read takes it apart
eventually answers
tap $? "udp-echo answers"
ends 0
tap $? "udp-echo ends on SIGTERM with exit status 0"
exec 3<&-

refuses 2 $examples/httpd && refuses 2 $examples/httpd -p 1x . &&
    refuses 2 $examples/httpd -t 0 . && refuses 2 $examples/httpd "$work/nothing" &&
    refuses 2 $examples/httpd -s 0 . && refuses 2 $examples/httpd -q 0 .
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

# test-chat and test-overload have the rest.
refuses 2 $examples/chat -p 65536 && refuses 2 $examples/chat -w 0 && refuses 2 $examples/chat room
tap $? "chat refuses bad arguments"

echo "1..$count"
