#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# soak.sh BUILD-DIR [SECONDS] - puts the example daemon under load from misbehaving clients while
# other pools are made and destroyed. Exits with 1 unless memory, descriptors and threads stay flat.
set -u

usage() {
    echo "usage: soak.sh build-dir [seconds, 4 to 86400]" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || usage
build=$1
seconds=${2:-600}
case $seconds in *[!0-9]* | '' | ??????*) usage ;; esac
[ "$seconds" -ge 4 ] || usage
for program in "$build/examples/httpd" "$build/c-tests/soak"; do
    [ -x "$program" ] || { echo "soak: $program is not there: build it first" >&2; exit 2; }
done

dir=$(mktemp -d) || exit 1
daemon=
clean_up() {
    [ -z "$daemon" ] || { kill -KILL "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null; }
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

mkdir "$dir/root"
echo '<!doctype html><title>soak</title>' >"$dir/root/index.html"
head -c 300000 /dev/zero >"$dir/root/big.bin"
"$build/examples/httpd" -p 0 -t 2 -i 2 "$dir/root" >"$dir/out" 2>"$dir/err" &
daemon=$!
tries=0
until grep -q '^listening on ' "$dir/out"; do
    tries=$((tries + 1))
    [ $tries -le 100 ] && kill -0 $daemon 2>/dev/null || { cat "$dir/err"; echo "soak: no daemon"; exit 1; }
    sleep 0.1
done
port=$(sed -n 's/^listening on .*://p' "$dir/out")
echo "daemon $daemon on port $port, for $seconds s"
"$build/c-tests/soak" "$port" $daemon "$seconds"
status=$?

# The daemon counts its own resources; its exit status says whether it released all of them.
kill -TERM $daemon
tries=0
while kill -0 $daemon 2>/dev/null && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
[ $tries -lt 100 ] || { echo "soak: FAILED: the daemon does not end"; exit 1; }
wait $daemon
ended=$?
daemon=
grep '^requests served' "$dir/out"
[ $ended -eq 0 ] || { cat "$dir/err"; echo "soak: FAILED: the daemon ended with $ended"; }
[ $status -eq 0 ] && [ $ended -eq 0 ]
