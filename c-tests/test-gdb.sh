#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# gdb's commands info ns-pools and info ns-jobs, on a live process and on a core, with a stripped library.
# Run in the project's root.
. c-tests/tap.sh
script=gdb/nunc-stans-gdb.py

if ! command -v gdb >/dev/null; then
    echo "ok 1 - # SKIP gdb is not there"
    exit 0
fi

${CC:-cc} -std=c11 -g -O1 -Iinclude -Ic-tests c-tests/looked-at.c -o "$work/looked-at" -Lbuild/lib \
    -lnunc-stans -lcmocka -lpthread >"$work/why" 2>&1 &&
    mkdir "$work/lib" && cp build/lib/libnunc-stans.so.0.2.0 "$work/lib/libnunc-stans.so.0.2.0" &&
    ln -s libnunc-stans.so.0.2.0 "$work/lib/libnunc-stans.so.0" && strip "$work/lib/libnunc-stans.so.0.2.0"
tap $? "the program to look at compiles; the library is stripped"

mkfifo "$work/in"
LD_LIBRARY_PATH="$work/lib" "$work/looked-at" blocked <"$work/in" >"$work/out" &
program=$!
exec 3>"$work/in"
until grep -q ready "$work/out"; do sleep 0.1; done

gdb_says() {
    timeout 60 gdb -batch -nx -iex 'set auto-load no' "$@" >"$work/why" 2>&1
}

gdb_says -p $program -ex "source $script" -ex 'info ns-pools' -ex 'info ns-jobs' -ex "gcore $work/core"
if grep -q 'ptrace: Operation not permitted' "$work/why"; then
    echo "ok $((count += 1)) - # SKIP this system does not let gdb look at a process"
    exec 3>&-
    wait $program
    echo "1..$count"
    exit 0
fi

# Each of these has to be in exactly one line.
see() {
    status=0
    while read -r want; do
        [ "$(grep -c "$want" "$work/why")" -eq "${1:-1}" ] || { echo "not once: $want" >>"$work/why"; status=1; }
    done
    return $status
}

pools="look-loop (thread [0-9]*): in callback stuck_in_the_loop (0x[0-9a-f]*) of 0x
look-worker 1 (thread [0-9]*): in callback stuck_in_a_worker (0x[0-9a-f]*) of 0x
pool 0x[0-9a-f]* (look): [0-9]* run-now, 1 timer, 2 descriptor, 1 signal jobs"
jobs="job 0x[0-9a-f]*: SIGNAL signal 10, armed, callback on_signal (0x
job 0x[0-9a-f]*: READ on descriptor [0-9]*, armed, callback on_socket (0x
job 0x[0-9a-f]*: READ TIMER THREAD on descriptor [0-9]*, armed, callback on_socket (0x
job 0x[0-9a-f]*: TIMER, armed, callback on_timer (0x
job 0x[0-9a-f]*: run-now, running in look-loop (thread [0-9]*).*, callback stuck_in_the_loop
job 0x[0-9a-f]*: run-now THREAD, running in look-worker 1 (thread [0-9]*).*, callback stuck_in_a_worker"
queued="job 0x[0-9a-f]*: run-now THREAD, in its group's queue, callback in_a_group (0x.*, group 0x"

echo "$pools" | see
tap $? "a live process: info ns-pools names the callback that each thread is in"
echo "$jobs" | see && echo "$queued" | see 2
tap $? "a live process: info ns-jobs has a line for each job"

LD_LIBRARY_PATH="$work/lib" gdb_says "$work/looked-at" "$work/core" -ex "source $script" -ex 'info ns-pools' -ex 'info ns-jobs'
echo "$pools" | see
tap $? "a core: info ns-pools"
echo "$jobs" | see && echo "$queued" | see 2
tap $? "a core: info ns-jobs"

address=$(sed -n 's/^pool \(0x[0-9a-f]*\) (look).*/\1/p' "$work/why" | head -n 1)
LD_LIBRARY_PATH="$work/lib" gdb_says "$work/looked-at" "$work/core" -ex "source $script" -ex "info ns-jobs $address" \
    -ex 'echo then\n' -ex 'info ns-jobs 1'
[ "$(sed '/^then/,$d' "$work/why" | grep -c '^  job')" -eq 8 ] && [ "$(sed '1,/^then/d' "$work/why" | grep -c job)" -eq 0 ]
tap $? "info ns-jobs POOL tells those of one pool"

# A process that was stopped in the middle of a change: lists that go round, and pointers to nowhere.
cat >"$work/break.py" <<'END'
layout = Layout()
pool = next(pools())
lists = layout.field(pool.address, "pool.lists")
write = lambda at, value: gdb.selected_inferior().write_memory(at, value.to_bytes(8, "little"))
node = pointer(lists + layout["lists.signals"])
write(node + layout["node.next"], node)
size = layout["RING"]
for index in range(layout["RINGS"]):
    ring = lists + layout["lists.timers"] + size * index
    first = pointer(ring + layout["link.next"])
    if first not in (0, ring):
        write(first + layout["link.next"], first)
ring = pool.address + layout["pool.shared"] + layout["shared.groups"]
write(ring + layout["link.next"], 16)
END
gdb_says -p $program -ex "source $script" -x "$work/break.py" -ex 'info ns-jobs' -ex 'info ns-pools' -ex kill
grep -q 'list of signal jobs is in the middle of a change' "$work/why" &&
    grep -q 'timer wheel is in the middle of a change' "$work/why" &&
    grep -q 'no memory at 0x.*: the process was in the middle of a change' "$work/why" &&
    grep -q 'READ on descriptor' "$work/why" && grep -q 'in callback stuck_in_the_loop' "$work/why"
tap $? "lists that go round or lead nowhere end the walk, which goes on with the next"
exec 3>&-
wait $program 2>/dev/null

gdb_says -ex "source $script" -ex 'info ns-pools' /bin/true
grep -q 'has not loaded nunc-stans' "$work/why"
tap $? "without the library: an error"

# By itself, from the directory for that, below which make install puts it by the library's path.
real=$(realpath "$work/lib/libnunc-stans.so.0.2.0")
mkdir -p "$work/auto-load$(dirname "$real")" && cp "$script" "$work/auto-load$real-gdb.py"
LD_LIBRARY_PATH="$work/lib" timeout 60 gdb -batch -nx -iex "set auto-load scripts-directory $work/auto-load" \
    -iex "set auto-load safe-path /" "$work/looked-at" "$work/core" -ex 'info ns-pools' >"$work/why" 2>&1
echo "$pools" | see
tap $? "gdb loads the commands by itself"

echo "1..$count"
