#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The statistics as text: promtool finds no fault in them, and a Prometheus reads them from the example
# daemon's /metrics. Run in the project's root.
. c-tests/tap.sh

mkdir "$work/root"
echo hello >"$work/root/index.html"
build/examples/httpd -p 0 "$work/root" >"$work/out" 2>"$work/err" &
server=$!
prometheus=
trap 'kill $server $prometheus 2>/dev/null; wait; rm -rf "$work"' EXIT

# within SECONDS COMMAND...: try until it succeeds.
within() {
    tries=$(($1 * 5))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.2
    done
}
get() { curl -sS --max-time 10 "$@"; }

within 30 grep -q '^listening on ' "$work/out"
tap $? "the daemon starts"
address=$(sed -n 's/^listening on //p' "$work/out")
for _ in 1 2 3 4 5; do
    get "http://$address/" >"$work/page"
done
get -D "$work/head" "http://$address/metrics" >"$work/metrics"
grep -qi '^content-type: text/plain; version=0.0.4' "$work/head" && cp "$work/metrics" "$work/why"
tap $? "/metrics is of the format's type"

grep -q '^nunc_stans_jobs_made_total{pool="ns-0"} [1-9]' "$work/metrics"
tap $? "and counts jobs"

awk '/^# HELP/ { help[$3] = 1 } /^# TYPE/ { type[$3] = 1 } /^nunc/ { sub(/[{ ].*/, "")
         if (/_(bucket|sum|count)$/) { it = $1; sub(/_(bucket|sum|count)$/, "", it); if (type[it]) $1 = it }
         name[$1] = 1 }
     END { for (it in name) if (!help[it] || !type[it]) print "no help or type: " it
           for (it in help) if (!name[it]) print "no value: " it }' "$work/metrics" >"$work/why"
[ ! -s "$work/why" ]
tap $? "each metric has its help and its type"

if ! command -v promtool >/dev/null || ! command -v prometheus >/dev/null; then
    echo "ok $((count += 1)) - # SKIP prometheus is not there"
    echo "1..$count"
    exit 0
fi

promtool check metrics <"$work/metrics" >"$work/why" 2>&1 && [ ! -s "$work/why" ]
tap $? "promtool finds no fault"

cat >"$work/prometheus.yml" <<END
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs: [{job_name: nunc-stans, static_configs: [{targets: ["$address"]}]}]
END
# Another port, if this one is taken.
for port in 19090 19091 29090 39090; do
    prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" \
        --web.listen-address="127.0.0.1:$port" --log.level=warn >"$work/why" 2>&1 &
    prometheus=$!
    api=http://127.0.0.1:$port/api/v1
    ready() { ! kill -0 $prometheus 2>/dev/null || get "http://127.0.0.1:$port/-/ready" >/dev/null 2>&1; }
    within 60 ready && kill -0 $prometheus 2>/dev/null && break
done
kill -0 $prometheus 2>/dev/null
tap $? "a Prometheus starts"

# value QUERY: its one value
value() { get -G --data-urlencode "query=$1" "$api/query" | sed -n 's/.*"value":\[[^,]*,"\([^"]*\)".*/\1/p'; }
is_up() { [ "$(value up)" = 1 ]; }
within 60 is_up
tap $? "and reads from the daemon"

agrees() { [ "$(value "$1")" = "$2" ]; }
within 30 agrees 'nunc_stans_workers{pool="ns-0"}' "$(sed -n 's/^nunc_stans_workers{.*} //p' "$work/metrics")"
tap $? "the number of workers is the daemon's"

grows() { [ "$(value 'increase(nunc_stans_runs_worker_total[1m]) > 0' | cut -c1)" ]; }
asks() {
    get "http://$address/" >/dev/null
    grows
}
within 60 asks
tap $? "callbacks in workers grow in number"

balance='nunc_stans_jobs_made_total - nunc_stans_jobs_disposed_total'
lives='nunc_stans_live_run_now + nunc_stans_live_io + nunc_stans_live_timers + nunc_stans_live_signals'
agrees "($balance) - ($lives)" 0
tap $? "jobs made are jobs disposed of and jobs that live"

quantile='histogram_quantile(0.9, rate(nunc_stans_run_worker_seconds_bucket[1m]))'
is_a_time() { value "$quantile" | grep -Eq '^[0-9.e-]+$' && [ "$(value "$quantile > bool 0")" = 1 ]; }
takes() {
    get "http://$address/" >/dev/null
    is_a_time
}
within 60 takes
tap $? "it tells how long nine of ten callbacks take at most"

tools/times.py draw "$work/metrics" >"$work/times.svg" 2>"$work/why" && grep -q '<rect .*#3b78a8' "$work/times.svg"
tap $? "the times are drawn"

kill -TERM $server && wait $server
tap $? "the daemon ends well"
echo "1..$count"
