#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# demo.sh BUILD-DIR - a PostgreSQL server of one's own, sql-gateway in front of it, and what it does
# when clients leave, when queries are slow, when there are too many, and when the server is killed
#
# Run by `make demo-sql`. Exits with 0 only if every check passed.
set -u

build=${1:-build}
for program in "$build/examples/sql-gateway" "$build/c-tests/sql-clients"; do
    [ $# -le 1 ] && [ -x "$program" ] || { echo "usage: demo.sh build-dir, with $program" >&2; exit 2; }
done
. "$(dirname "$0")/postgres.sh"

dir=$(mktemp -d) && chmod 711 "$dir" || exit 1 # the server's user passes through it
gateway= clients=
clean_up() {
    for pid in $clients $gateway; do
        kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
    postgres_end
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

failures=0
# check WHAT COMMAND...: one line, ok or FAILED
check() {
    what=$1
    shift
    if "$@"; then
        echo "  ok      $what"
    else
        echo "  FAILED  $what"
        failures=$((failures + 1))
    fi
}
give_up() {
    echo "demo-sql: FAILED: $1"
    cat "$dir/pg.log" "$dir/err" 2>/dev/null
    exit 1
}
# eventually COMMAND...: true when it succeeds within 20 seconds
eventually() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 400 ] || return 1
        sleep 0.05
    done
}

# ask SQL: the answer, and HTTP's status behind it. Blanks are the only characters that need a code.
ask() { curl -sS --max-time 20 -g -w '%{http_code}' "$url/sql/$(echo "$1" | sed 's/ /%20/g')"; }
says() { [ "$(ask "$1")" = "$2" ]; }
has_status() { [ "$(ask "$1" | tail -c 3)" = "$2" ]; }
counter() { curl -sS "$url/status" | sed "s/.*\"$1\": \([0-9]*\).*/\1/"; }
counts() { [ "$(counter "$1")" "$2" "$3" ]; }
active() { sql "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ 'pg_sleep' AND pid <> pg_backend_pid()"; }
none_active() { [ "$(active)" = 0 ]; }
none_open() { [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE state ~ 'in transaction'")" = 0 ]; }

echo "Starting PostgreSQL:"
postgres_new "$dir/pg" && postgres_start || give_up "PostgreSQL does not start"
echo "  $(sql 'SHOW server_version'), on a socket in $pg"

"$build/examples/sql-gateway" -p 0 -c 4 -q 20 -l 3000 "$conninfo" >"$dir/out" 2>"$dir/err" &
gateway=$!
eventually grep -qs '^listening on ' "$dir/out" || give_up "the gateway does not start"
url=http://$(sed -n 's/^listening on //p' "$dir/out")
port=${url##*:}
echo "sql-gateway (process $gateway) listens on $url; 4 connections, 20 may wait, 3 s for a query"
check "it has connected" eventually counts connected = 4

echo "Asking with curl:"
check "a query is answered" says "SELECT 'hello', 6*7" "hello	42
200"
check "a mistake gets PostgreSQL's message" has_status "SELEC 1" 400
check "one that runs for too long is cancelled" has_status "SELECT pg_sleep(60)" 504
check "and does not run on in the server" eventually none_active
check "BEGIN is taken" says "BEGIN" "BEGIN
200"
check "but the next client does not find itself in that transaction" eventually none_open
curl -sS --max-time 1 "$url/sql/SELECT%20pg_sleep(60)" 2>/dev/null
check "one whose client has hung up is cancelled" eventually none_active
check "and the gateway has seen that" counts hang_ups -ge 1

echo "Loading with 200 clients, of which many hang up:"
"$build/c-tests/sql-clients" "$port" 200 >"$dir/clients" &
clients=$!
# progress SECONDS
progress() {
    for _ in $(seq "$1"); do
        sleep 1
        echo "  $(tail -n 1 "$dir/clients"); $(counter connected) connected, $(counter waiting) waiting"
    done
}
progress 4
check "too many were refused" counts overloaded -ge 1
echo "Killing PostgreSQL (kill -9):"
postgres_kill || give_up "PostgreSQL could not be killed"
check "the connections are lost" eventually counts connected = 0
progress 2
echo "Starting it again:"
postgres_start || give_up "PostgreSQL does not start again"
check "the connections are back" eventually counts connected = 4
progress 3
kill -TERM $clients
wait $clients
status=$?
clients=
echo "  $(tail -n 1 "$dir/clients")"
check "each had its own answer or an error; none was forgotten" [ $status -eq 0 ]
check "no query runs for nobody" eventually none_active

echo "Sending SIGTERM while a query runs:"
ask "SELECT 'last' FROM pg_sleep(1)" >"$dir/last" &
last=$!
eventually counts running = 1
kill -TERM $gateway
wait $last
check "it is still answered" [ "$(cat "$dir/last")" = "last
200" ]
wait $gateway
status=$?
gateway=
echo "  $(tail -n 1 "$dir/out")"
check "exit status 0: all is freed and closed" [ $status -eq 0 ]

[ $failures -eq 0 ] || give_up "$failures of the checks above"
echo "demo-sql: PASSED"
