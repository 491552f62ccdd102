#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# demo.sh HTTPD [SECONDS] - start the example daemon, use it, load it, stop it, and judge
#
# Run by `make demo`. Exits with 0 only if every check passed.
set -u

usage() {
    echo "usage: demo.sh path-to-httpd [seconds of load, 1 to 3600]" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
httpd=$1
seconds=${2:-10}
case $seconds in *[!0-9]* | '' | ?????*) usage ;; esac
[ "$seconds" -ge 1 ] && [ "$seconds" -le 3600 ] || usage
if ! [ -x "$httpd" ]; then
    echo "demo: $httpd is not there: build it first" >&2
    exit 2
fi
for tool in curl wrk; do
    if ! command -v $tool >/dev/null; then
        echo "demo: $tool is missing. On Debian or Ubuntu: sudo apt-get install -y curl wrk" >&2
        exit 2
    fi
done

dir=$(mktemp -d) || exit 1
server= wrk=
clean_up() {
    for pid in $wrk $server; do
        kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    done
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
    echo "demo: FAILED: $1"
    cat "$dir/err" 2>/dev/null
    exit 1
}

# start [OPTION...]: the daemon, on a port of the kernel's choice
start() {
    "$httpd" -p 0 "$@" "$dir/root" >"$dir/out" 2>"$dir/err" &
    server=$!
    tries=0
    until grep -qs '^listening on ' "$dir/out"; do
        kill -0 "$server" 2>/dev/null || give_up "the daemon did not start"
        tries=$((tries + 1))
        [ $tries -le 100 ] || give_up "the daemon does not listen after 10 s"
        sleep 0.1
    done
    url=http://$(sed -n 's/^listening on //p' "$dir/out")
}

# stop: SIGTERM; its exit status in $status
stop() {
    kill -TERM "$server"
    tries=0
    while kill -0 "$server" 2>/dev/null && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
    [ $tries -lt 100 ] || give_up "the daemon does not end within 10 s of SIGTERM"
    wait "$server"
    status=$?
    server=
}

# 1. Start
mkdir "$dir/root"
echo '<!doctype html><title>nunc-stans</title><h1>It works</h1>' >"$dir/root/index.html"
echo 'body { color: black }' >"$dir/root/style.css"
head -c 100000 /dev/urandom >"$dir/root/big.bin"

start
echo "httpd (process $server) listens on $url"

# 2. Use
get() { curl -sS --max-time 10 "$@"; }
same() { get -o "$dir/got" "$url/$1" && cmp -s "$dir/got" "$dir/root/$1"; }
answers() { [ "$(get -o /dev/null -w '%{http_code}' --path-as-is "$url$2")" = "$1" ]; }
counts() { get "$url/status" | grep -q '"requests": [1-9]'; }
keeps_alive() {
    [ "$(get -o /dev/null -o /dev/null -w '%{num_connects} ' "$url/" "$url/style.css")" = "1 0 " ]
}
echo "Fetching with curl:"
check "the index is the file" same index.html
check "a file of 100,000 bytes comes whole" same big.bin
check "what is not there is 404" answers 404 /nothing
check "a path out of the root is refused" answers 400 /../secret
check "/status counts" counts
check "two requests, one connection" keeps_alive
measures() { get "$url/metrics" | grep -q '^nunc_stans_jobs_made_total{pool="ns-0"} [1-9]'; }
check "/metrics has the pool's statistics" measures

# 3. Load
counter() { get "$url/status" 2>/dev/null | sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p"; }
echo "Loading with wrk: 64 connections for $seconds s"
wrk -t2 -c64 -d"${seconds}s" --latency "$url/" >"$dir/wrk" 2>&1 &
wrk=$!
while sleep 1 && kill -0 $wrk 2>/dev/null; do
    echo "  $(counter requests) requests, $(counter open) connections open"
done
wait $wrk
load=$?
wrk=
loaded() { [ $load -eq 0 ] && grep -q '^Requests/sec: *[1-9]' "$dir/wrk"; }
no_errors() { ! grep -E 'Socket errors|Non-2xx' "$dir/wrk"; }
check "wrk was served" loaded
check "without an error" no_errors
sed -n '/Latency Distribution/,/99%/p; /requests in/p; /^Requests\/sec/p' "$dir/wrk"
rate=$(sed -n 's/^Requests\/sec: *//p' "$dir/wrk")

get "$url/metrics" >"$dir/metrics"

# 4. Stop
echo "Sending SIGTERM:"
stop
summary=$(grep '^requests served' "$dir/out")
echo "  $summary"
made=$(echo "$summary" | sed -n 's/.*jobs made: \([0-9]*\).*/\1/p')
disposed=$(echo "$summary" | sed -n 's/.*jobs disposed: \([0-9]*\).*/\1/p')
all_disposed() { [ -n "$made" ] && [ "$made" = "$disposed" ]; }
check "every job was disposed of" all_disposed
closed() { echo "$summary" | grep -q 'descriptors left open: 0$'; }
check "every descriptor was closed" closed
check "exit status 0" [ $status -eq 0 ]

# 5. Run out of descriptors
echo "Another, limited to 40 descriptors, with 64 clients for 2 s:"
start -n 40
wrk -t1 -c64 -d2s "$url/status" >"$dir/wrk" 2>&1 &
wrk=$!
wait $wrk
wrk=
pauses=$(counter pauses)
echo "  it said: $(grep -m 1 accept "$dir/err")"
echo "  $(counter requests) requests; accepting was paused ${pauses:-0} times"
check "it accepted no more, for a while" [ "${pauses:-0}" -gt 0 ]
check "and serves when they have gone" same index.html
stop
check "exit status 0" [ $status -eq 0 ]

# 6. Judge
if [ $failures -ne 0 ]; then
    give_up "$failures of the checks above"
fi
echo "What /metrics said after the load:"
sed 's/^/  /' "$dir/metrics"
echo "demo: PASSED: $rate requests/s, $made jobs made and disposed of, no descriptor left open"
