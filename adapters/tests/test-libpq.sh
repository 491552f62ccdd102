#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# nunc-stans-libpq.h, against a PostgreSQL of its own that is killed at the end. Run in the project's root;
# LIBPQ_TEST is adapters/tests/libpq.c, compiled.
. c-tests/tap.sh
. examples/sql-gateway/postgres.sh
trap 'postgres_end 2>/dev/null; rm -rf "$work"' EXIT
chmod 711 "$work" # the server's user passes through it
postgres_new "$work/pg" && postgres_start
tap $? "a server runs"
"$LIBPQ_TEST" "$conninfo" >"$work/why" 2>&1
status=$?
grep -E '^(not )?ok ' "$work/why" | sed 's/^\(not \)*ok [0-9]*/\1ok/' >"$work/results"
# The whole output is shown with what fails at the end.
while read -r line; do
    [ "${line%% *}" = ok ]
    tap $? "${line#* - }"
done <"$work/results"
[ $status -eq 0 ] && [ "$(wc -l <"$work/results")" -eq 10 ]
tap $? "all of them ran"
"$LIBPQ_TEST" "$conninfo" crash >"$work/why" 2>&1 &
client=$!
tries=0
until grep -q '^# ready' "$work/why" || [ $tries -gt 300 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
postgres_kill && wait $client
tap $? "connections and queries are told when the server is killed"
echo "1..$count"
