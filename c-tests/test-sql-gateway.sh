#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The example sql-gateway, on a PostgreSQL server of its own: what becomes of queries when clients
# leave at every point, when time is up, when too many wait, and when the server is killed. Run in
# the project's root.
. c-tests/tap.sh
. examples/sql-gateway/postgres.sh
chmod 711 "$work" # the server's user passes through it
clients=build/c-tests/sql-clients
gateway='' load=''
clean_up() {
    kill -KILL $gateway $load 2>/dev/null
    postgres_end 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

is_gone() { ! kill -0 "$gateway"; }

# starts COMMAND... CONNINFO: a gateway, on a port that the kernel chooses.
starts() {
    rm -f "$work/out" # of the one before
    "$@" >"$work/out" 2>"$work/why" &
    gateway=$!
    eventually grep -q '^listening on ' "$work/out" || return 1
    port=$(sed -n 's/^listening on .*://p' "$work/out")
}

# ends: SIGTERM ends it with exit status 0: it has freed and closed everything. And it has told of
# nothing but of its connections.
ends() {
    kill -TERM "$gateway" && eventually is_gone || return 1
    wait "$gateway"
    local status=$?
    gateway=''
    ! grep -v '^sql-gateway: a database connection is ' "$work/why" && [ $status -eq 0 ]
    local good=$?
    tail -n 1 "$work/out" >>"$work/why"
    echo "exit status $status" >>"$work/why"
    return $good
}

# ask SQL: the answer, and HTTP's status behind it.
ask() { curl -sS --max-time 60 -g -w '%{http_code}' "http://127.0.0.1:$port/sql/${1// /%20}"; }
says() {
    local got
    got=$(ask "$1") && [ "$got" = "$2" ]
}
# asks NAME SQL: in the background; wait for it with `wait $!`.
asks() {
    # The process is curl's, so that killing it hangs up.
    exec curl -sS --max-time 60 -g -o "$work/$1" -w '%{http_code}' \
        "http://127.0.0.1:$port/sql/${2// /%20}" >"$work/$1-status" 2>/dev/null
}
has() { [ "$(cat "$work/$1-status")" = "$2" ]; }
counter() { curl -sS --max-time 10 "http://127.0.0.1:$port/status" | sed "s/.*\"$1\": \([0-9]*\).*/\1/"; }
counts() { [ "$(counter "$1")" "$2" "$3" ]; }
sleeping() {
    sql "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'pg_sleep'
         AND pid <> pg_backend_pid()"
}
none_sleeps() { [ "$(sleeping)" = 0 ]; }
nothing_left() {
    [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sql-gateway'")" = 0 ]
}
left() {
    kill -KILL "$1"
    wait "$1" 2>/dev/null
}

refuses() { timeout 10 build/examples/sql-gateway "$@" >"$work/why" 2>&1; [ $? -eq 2 ]; }
refuses && refuses -p 1x x && refuses -t 1 x && refuses -c 0 x && refuses x y
tap $? "it refuses bad arguments"

postgres_new "$work/pg" && postgres_start
status=$?
cp "$work/pg.log" "$work/why" 2>/dev/null
tap $status "PostgreSQL starts"

# One connection, so that there is no doubt which queries wait.
starts build/examples/sql-gateway -p 0 -c 1 -q 2 -l 60000 -i 1 "$conninfo" &&
    eventually counts connected = 1
tap $? "the gateway starts, and connects"

says "SELECT 'a', NULL, E'b\tc\\n', ''" "a	\\N	b\\tc\\n	
200" && says "SELECT x FROM generate_series(1, 3) x" "1
2
3
200" && says "CREATE TABLE t (x int)" "CREATE TABLE
200" && says "" 200
tap $? "queries are answered"
ask "SELECT 1/0" | grep -q 'division by zero' && ask "SELECT 1/0" | grep -q '^400$' &&
    ask "SELECT 1; SELECT 2" | grep -q '^400$'
tap $? "mistakes get PostgreSQL's message"
says "COPY t TO STDOUT" "COPY is not served
400" && says "SELECT 1" "1
200" && says "COPY t FROM STDIN" "COPY is not served
400" && says "SELECT 2" "2
200"
tap $? "COPY, which is no query, is refused, and the next query is answered"
pid=$(ask "SELECT pg_backend_pid()" | head -n 1)
says "BEGIN" "BEGIN
200" && [ "$(ask "SELECT pg_backend_pid()" | head -n 1)" != "$pid" ]
tap $? "a transaction that is left open is not the next client's"
ask "SELECT repeat('x', 1000000) FROM generate_series(1, 100)" | grep -q 'too large' &&
    says "SELECT 3" "3
200"
tap $? "a result that is too large is cut off, and the next query is answered"

exec 3<>"/dev/tcp/127.0.0.1/$port" 4<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /sql/SEL' >&4
read -r -t 20 -u 3 line
[ $? -eq 1 ] # the end, and not the time
status=$?
read -r -t 20 -u 4 line
[ $? -eq 1 ] && [ $status -eq 0 ]
tap $? "idle clients are dropped, also within a request"
exec 3<&- 4<&-

# Each of these leaves one client: the one that asks.
alone() { counts clients = 1; }
exec 3<>"/dev/tcp/127.0.0.1/$port"
exec 3<&-
eventually alone
tap $? "a client hangs up before its request"
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /sql/SELECT%%20' >&3
exec 3<&-
eventually alone
tap $? "a client hangs up within its request"

asks first "SELECT pg_sleep(600)" &
first=$!
eventually counts running = 1
asks second "SELECT 'second'" &
second=$!
eventually counts waiting = 1
asks third "SELECT 'third'" &
third=$!
eventually counts waiting = 2
tap $? "one query runs, two wait"
says "SELECT 1" "503 Service Unavailable
503" && counts overloaded = 1
tap $? "one more is refused"
left $second
eventually counts waiting = 1
tap $? "a client hangs up while its query waits"
left $first
wait $third && has third 200 && grep -qx third "$work/third"
tap $? "a client hangs up while its query runs: it is cancelled, and the next one answered"
counts cancels -ge 1 && counts lost = 0 && eventually alone && none_sleeps
tap $? "by a cancel, on the same connection"

exec 3<>"/dev/tcp/127.0.0.1/$port"
printf "GET /sql/SELECT%%20repeat('x',15000000) HTTP/1.1\r\nHost: x\r\n\r\n" >&3
read -r -t 20 -N 1000 -u 3 line && [[ $line == *"Content-Length: 15000001"* ]]
status=$?
exec 3<&-
eventually alone && [ $status -eq 0 ]
tap $? "a client hangs up within the answer"
ends
tap $? "it ends on SIGTERM with exit status 0"

starts build/examples/sql-gateway -p 0 -c 1 -l 1000 "$conninfo" && eventually counts connected = 1
says "SELECT pg_sleep(600)" "504 Gateway Timeout
504" && says "SELECT 'next'" "next
200" && none_sleeps && counts timeouts = 1 && counts lost = 0
tap $? "a query that runs for too long is cancelled, and the next one answered"
ends
tap $? "it ends after that"

starts build/examples/sql-gateway -p 0 -c 1 -l 3000 "$conninfo" && eventually counts connected = 1
asks first "SELECT pg_sleep(600)" &
first=$!
eventually counts running = 1
postgres_kill
wait $first
has first 502 && grep -q 'connection was lost' "$work/first"
tap $? "the server is killed: the client of a query that ran learns of it"
eventually counts connected = 0
says "SELECT 1" "503 Service Unavailable
503"
tap $? "without a server queries wait until their time is up"
asks first "SELECT 'at last'" &
first=$!
eventually counts waiting = 1
postgres_start
wait $first
has first 200 && grep -qx 'at last' "$work/first"
tap $? "the server is back: the query that waited is answered"
postgres_kill && eventually counts connected = 0
asks first "SELECT 'again'" &
first=$!
eventually counts waiting = 1 && postgres_start && wait $first && has first 200
tap $? "an idle connection is lost: a query waits until it is back"
ends
tap $? "it ends after that"

# The main process is stopped: it takes neither cancels nor connections. Once it goes on, it takes
# the cancel.
starts build/examples/sql-gateway -p 0 -c 1 -l 1000 "$conninfo" && eventually counts connected = 1
server=$(as_user head -n 1 "$pg/data/postmaster.pid")
as_user kill -STOP "$server"
says "SELECT pg_sleep(600)" "504 Gateway Timeout
504" && eventually counts lost = 1
status=$?
as_user kill -CONT "$server"
[ $status -eq 0 ] && eventually counts connected = 1 && says "SELECT 4" "4
200" && eventually none_sleeps
tap $? "the server hangs: the connection is given up, and made again when the server goes on"
ends
tap $? "it ends after that"

# A query runs until the test lets go of a lock.
locked() { [ "$(sql "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")" = 1 ]; }
sql "SELECT pg_advisory_lock(7), pg_sleep(600)" >/dev/null 2>&1 &
holder=$!
eventually locked
starts build/examples/sql-gateway -p 0 -c 1 -l 60000 "$conninfo" && eventually counts connected = 1
asks first "SELECT 'last' FROM pg_advisory_lock(7)" &
first=$!
eventually counts running = 1
asks second "SELECT 'waits'" &
second=$!
eventually counts waiting = 1
kill -TERM "$gateway"
wait $second
has second 503 && kill -0 "$gateway"
status=$?
kill $holder
sql "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted
     AND pid IN (SELECT pid FROM pg_stat_activity WHERE query ~ 'pg_sleep')" >/dev/null
wait $first
has first 200 && grep -qx last "$work/first" && [ $status -eq 0 ]
tap $? "SIGTERM: the query that waits is refused, the one that runs is answered"
wait "$gateway"
tap $? "and then it ends with exit status 0"
gateway=''
eventually nothing_left
tap $? "the server has no connection left"

answered() { sed -n 's/^\([0-9]*\) answers.*/\1/p' "$work/load" | tail -n 1; }
more_than() { [ "$(answered)" -gt "$1" ]; }
more_answers() { eventually more_than $(($(answered) + $1)); }
# crashed HOW N: the server goes at once and comes back; N answers more.
crashed() {
    local before
    before=$(counter lost)
    "$@" && eventually counts lost -gt "$before" && postgres_start && eventually counts connected -gt 0
}
# loaded COUNT ANSWERS COMMAND...: COUNT clients ask and hang up, while the server crashes twice.
loaded() {
    local count=$1 answers=$2
    shift 2
    starts "$@" -p 0 -c 6 -q 60 -l 2000 "$conninfo" && eventually counts connected = 6 || return 1
    $clients "$port" "$count" >"$work/load" 2>&1 &
    load=$!
    eventually grep -q ' answers' "$work/load"
    more_answers "$answers" && crashed postgres_kill && more_answers "$answers" &&
        crashed postgres_stop immediate && more_answers "$answers"
    local done=$?
    kill -TERM $load
    wait $load
    local judged=$?
    load=''
    eventually none_sleeps && eventually alone && ends && [ $done -eq 0 ] && [ $judged -eq 0 ] &&
        eventually nothing_left
    local good=$?
    tail -n 15 "$work/load" >>"$work/why"
    return $good
}

loaded 200 500 build/examples/sql-gateway
tap $? "200 clients, the server killed and restarted: each has its own answer or an error"

# shellcheck disable=SC2046 # pkg-config prints words
cc -std=c11 -g -O1 -fsanitize=address -fno-omit-frame-pointer -Iinclude \
    examples/sql-gateway/*.c -o "$work/sql-gateway" $(pkg-config --cflags --libs libpq) -Lbuild/lib \
    "-Wl,-rpath,$PWD/build/lib" -lnunc-stans -lpthread >"$work/why" 2>&1 &&
    loaded 100 300 env ASAN_OPTIONS=detect_stack_use_after_return=1 "$work/sql-gateway" &&
    ! grep Sanitizer "$work/why"
tap $? "the same with AddressSanitizer in it, 100 clients"

loaded 20 50 valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
    --fair-sched=yes build/examples/sql-gateway && ! grep '^==' "$work/why"
tap $? "the same under valgrind, 20 clients"

echo "1..$count"
