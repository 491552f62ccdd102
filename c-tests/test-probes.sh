#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The probes: listed in the library, one nop each, found by gdb, traced by bpftrace. Run in the
# project's root.
. c-tests/tap.sh
library=$PWD/build/lib/libnunc-stans.so.0.2.0
names="group_queued job_armed job_disposed job_fired job_made run_begin run_return wake_written"

case $(uname -sm) in
"Linux x86_64" | "Linux aarch64" | "Linux riscv64") ;;
*)
    echo "ok 1 - # SKIP there are no probes on this system"
    exit 0
    ;;
esac

readelf -nW "$library" >"$work/notes"
for name in $names; do echo "$name"; done >"$work/want"
sed -n 's/^ *Name: *//p' "$work/notes" | LC_ALL=C sort -u | diff "$work/want" - >"$work/why" &&
    sed -n 's/.*Provider: *//p' "$work/notes" | sort -u >"$work/why" &&
    [ "$(cat "$work/why")" = nunc_stans ]
tap $? "readelf lists the eight probes, and no others"

sed -n 's/.*Location: 0x\([0-9a-f]*\), Base.*/\1/p' "$work/notes" | sed 's/^0*//' | sort -u >"$work/places"
objdump -d --no-show-raw-insn "$library" | sed -n 's/^ *\([0-9a-f]*\):[[:space:]]*\(.*\)/\1 \2/p' |
    awk 'NR == FNR { place[$1] = 1; next } $1 in place && $2 == "nop" { delete place[$1] }
         END { for (at in place) print "no nop at " at }' "$work/places" - >"$work/why"
[ -s "$work/places" ] && [ ! -s "$work/why" ]
tap $? "each is a nop"

sed -n 's/.*Base: 0x\([0-9a-f]*\), .*/\1/p' "$work/notes" | sort -u >"$work/why"
[ "$(wc -l <"$work/why")" -eq 1 ] && ! grep -q '^0*$' "$work/why"
tap $? "and says where the linker put it"

${CC:-cc} -std=c11 -g -O1 -rdynamic -Iinclude -Ic-tests c-tests/looked-at.c -o "$work/looked-at" -Lbuild/lib \
    -lnunc-stans -lcmocka -lpthread -Wl,-rpath,"$PWD/build/lib" >"$work/why" 2>&1
tap $? "the program to look at compiles"

if ! command -v gdb >/dev/null; then
    echo "ok $((count += 1)) - # SKIP gdb is not there"
else
    gdb -batch -nx -ex 'set auto-load no' -ex 'info probes stap nunc_stans' "$library" >"$work/why" 2>&1
    awk '$1 == "stap" { print $3 }' "$work/why" | LC_ALL=C sort -u | diff "$work/want" - >>"$work/why"
    tap $? "gdb lists them"

    # gdb stops at each of them, and the arguments are those of the job.
    echo >"$work/line"
    for name in $names; do
        echo "break -probe-stap nunc_stans:$name"
    done >"$work/commands"
    cat >>"$work/commands" <<END
run work <$work/line
python
import gdb
seen, stops = {}, 0
def value(name):
    return int(gdb.parse_and_eval(name)) & (2**64 - 1)
names = "$names".split()
while gdb.selected_inferior().pid and stops < 400:
    stops += 1
    stop = gdb.selected_frame().pc()
    where = gdb.execute("info probes stap nunc_stans", to_string=True)
    name = next(l.split()[2] for l in where.splitlines() if "0x%016x" % stop in l)
    count = value("\$_probe_argc")
    if name == "wake_written":
        seen.setdefault(name, set()).add((count, value("\$_probe_arg1") < 1000))
    else:
        symbol = gdb.execute("info symbol %d" % value("\$_probe_arg2"), to_string=True).split()[0]
        seen.setdefault(name, set()).add((count, symbol, value("\$_probe_arg4") & 0x3ff))
    gdb.execute("continue", to_string=True)
for name in names:
    for what in sorted(seen.get(name, [])):
        print("PROBE", name, *what)
end
END
    timeout 100 gdb -batch -nx -ex 'set auto-load no' -ex 'set breakpoint pending on' \
        -ex 'handle SIGUSR1 nostop noprint pass' -x "$work/commands" "$work/looked-at" >"$work/gdb" 2>&1
    grep '^PROBE' "$work/gdb" | LC_ALL=C sort >"$work/why"
    wanted="job_made 6 on_socket 260
job_made 6 in_a_group 128
job_armed 6 wait_for_the_worker 128
job_fired 7 on_timer 16
job_fired 7 on_signal 32
job_fired 7 on_socket 260
run_begin 6 hold_the_worker 128
run_return 6 hold_the_loop 0
group_queued 6 in_a_group 128
job_disposed 6 on_signal 32
wake_written 2 True"
    status=0
    echo "$wanted" | while read -r line; do
        grep -qx "PROBE $line" "$work/why" || { echo "missing: $line" && exit 1; }
    done >>"$work/why" || status=1
    [ $status -eq 0 ] || tail -n 20 "$work/gdb" >>"$work/why"
    tap $status "gdb stops at each of them and reads the arguments"
fi

# traced SCRIPT: what the script tells of the program at work, into $work/trace. 2 if it may not.
traced() {
    mkfifo "$work/in" && : >"$work/trace"
    "$work/looked-at" work <"$work/in" >"$work/out" &
    program=$!
    exec 3>"$work/in"
    until grep -q ready "$work/out"; do sleep 0.1; done
    timeout -s INT 60 bpftrace -p $program "$1" >"$work/trace" 2>&1 &
    tracer=$!
    until grep -q 'ctrl-c ends' "$work/trace"; do
        kill -0 $tracer 2>/dev/null || break
        sleep 0.1
    done
    if grep -q 'ctrl-c ends' "$work/trace"; then
        echo >&3
        until grep -q 'done' "$work/out"; do sleep 0.1; done
        kill -INT $tracer
        may=0
    else
        may=2
    fi
    exec 3>&-
    wait $tracer
    wait $program
    rm "$work/in"
    return $may
}

if ! command -v bpftrace >/dev/null; then
    echo "ok $((count += 1)) - # SKIP bpftrace is not there"
elif traced tools/ns-queue-wait.bt; [ $? -eq 2 ]; then
    echo "ok $((count += 1)) - # SKIP this kernel does not let bpftrace trace: $(tail -n 1 "$work/trace")"
else
    cp "$work/trace" "$work/why"
    # Those that waited for the worker waited about as long as it was held; nothing else did.
    longest=$(sed -n 's/^@longest_us\[wait_for_the_worker\]: //p' "$work/trace")
    [ "${longest:-0}" -ge 20000 ] && grep -q '^@jobs\[wait_for_the_worker\]: 5$' "$work/trace" &&
        grep -q '^@jobs\[on_socket\]: 1$' "$work/trace"
    tap $? "bpftrace: ns-queue-wait.bt names who waits longest in the queue"

    traced tools/ns-loop-blocked.bt
    cp "$work/trace" "$work/why"
    grep -q 'hold_the_loop held the loop for [2-9][0-9][0-9][0-9][0-9]' "$work/trace" &&
        ! grep -q 'hold_the_worker' "$work/trace"
    tap $? "bpftrace: ns-loop-blocked.bt names the callback that blocks the loop"
fi

echo "1..$count"
