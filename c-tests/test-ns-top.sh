#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# ns-top: what the threads of another process do, while that is wedged. Run in the project's root.
# With NS_COUNT=full the loop is blocked for 30 s, else for 2.
. c-tests/tap.sh
top=build/ns-top/ns-top
seconds=2
[ "${NS_COUNT:-}" != full ] || seconds=30

${CC:-cc} -std=c11 -g -O1 -Iinclude -Ic-tests c-tests/looked-at.c -o "$work/looked-at" -Lbuild/lib \
    -lnunc-stans -lcmocka -lpthread -Wl,-rpath,"$PWD/build/lib" >"$work/why" 2>&1
tap $? "the program to look at compiles"

# begin MODE: starts the program, and waits until it is what the mode says. end: ends it.
begin() {
    mkfifo "$work/in"
    : >"$work/out" # the program before was ready, too
    "$work/looked-at" "$1" <"$work/in" >"$work/out" &
    program=$!
    exec 3>"$work/in"
    until grep -q ready "$work/out"; do sleep 0.1; done
}

end() {
    exec 3>&-
    wait $program
    rm "$work/in"
}

begin blocked
if ! $top -b -n 1 $program >"$work/why" 2>&1; then
    if grep -q 'Operation not permitted\|Function not implemented' "$work/why"; then
        end
        echo "ok $((count += 1)) - # SKIP this system does not let a process read another: $(cat "$work/why")"
        echo "1..$count"
        exit 0
    fi
fi
grep -q '^  look-loop  *[0-9]* S .* stuck_in_the_loop (job 0x' "$work/why" &&
    grep -q '^  look-worker 1  *[0-9]* S .* stuck_in_a_worker (job 0x' "$work/why"
tap $? "it names the callback that each thread is in, from the symbols of a program that exports none"

grep -q '2 of 2 threads in callbacks; jobs: [0-9]* run-now, 1 timer, 2 descriptor, 1 signal' "$work/why"
tap $? "it counts the jobs"

$top -b -n $((seconds + 1)) -d 1 $program >"$work/why" 2>&1
held=$(sed -n 's/^  look-loop  *[0-9]* S *>\([0-9]*\)\..* 0  stuck_in_the_loop.*/\1/p' "$work/why" | tail -n 1)
[ "${held:-0}" -ge "$seconds" ] && [ "$(grep -c stuck_in_the_loop "$work/why")" -eq $((seconds + 1)) ]
tap $? "each second it tells that the loop has been in the callback for $seconds s, since it saw it first"

# Nothing stops the process, nor does it notice.
grep '^\(State\|TracerPid\)' "/proc/$program/status" >"$work/why" && grep -q '^State:.*[SR]' "$work/why" &&
    grep -q '^TracerPid:[[:space:]]*0$' "$work/why"
tap $? "nobody stops or traces the process"
end
tap $? "and ends as ever"

for mode in watched timed; do
    begin $mode
    sleep 1.1
    $top -b -n 1 $program >"$work/why" 2>&1
    held=$(sed -n 's/^  look-loop  *[0-9]* S *\([0-9]*\)\..*stuck_in_the_loop.*/\1/p' "$work/why")
    [ "${held:-0}" -ge 1 ]
    tap $? "in a pool that is $mode it knows when the callback began, at the first look"
    end
done

# What strip leaves is enough for all but the names.
mkdir "$work/lib" && cp build/lib/libnunc-stans.so.0 "$work/lib" && strip "$work/lib/libnunc-stans.so.0" &&
    cp "$work/looked-at" "$work/whole" && strip "$work/looked-at"
LD_LIBRARY_PATH=$work/lib
export LD_LIBRARY_PATH
begin blocked
$top -b -n 1 $program >"$work/why" 2>&1
grep -q '^  look-loop .* looked-at+0x[0-9a-f]* (job 0x' "$work/why"
tap $? "a program and a library that are stripped are told by offsets"
end
unset LD_LIBRARY_PATH
mv "$work/whole" "$work/looked-at"

begin work
# The program may get work before the first look or between two: give it some until a look tells a rate.
tells_a_rate() {
    awk '$1 == "look-loop" || $1 == "look-worker" { for (i = 4; i <= 7; i++) if ($i ~ /^[1-9][0-9]*$/) rate = 1 }
         END { exit !rate }' "$work/why"
}
: >"$work/why"
$top -b -d 0.2 $program >"$work/why" 2>&1 &
looking=$!
for _ in $(seq 200); do
    echo >&3
    sleep 0.1
    tells_a_rate && break
done
kill -TERM $looking
wait $looking 2>/dev/null
tells_a_rate
tap $? "it tells how many callbacks a thread runs a second"

# A real pseudo-terminal would be needed for q; a signal ends it as well.
: >"$work/why" # what the last one said must not count
$top -d 0.1 $program >"$work/why" 2>&1 </dev/null &
looking=$!
until [ "$(grep -c 'ns-top: process' "$work/why")" -ge 3 ]; do sleep 0.1; done
kill -TERM $looking
wait $looking 2>/dev/null
grep -q "$(printf '\033')\[H" "$work/why"
tap $? "without -b it draws anew, until it is stopped"
end

$top -b -n 1 $program >"$work/why" 2>&1
[ $? -eq 1 ] && grep -q 'No such file or directory\|No such process\|has ended' "$work/why"
tap $? "a process that has ended: an error"
$top -b -n 1 $$ >"$work/why" 2>&1
[ $? -eq 1 ] && grep -q 'has not loaded nunc-stans' "$work/why"
tap $? "a process without the library: an error"
{ $top; $top 0; $top x; $top -d -1 1; } >"$work/why" 2>&1
[ "$(grep -c usage "$work/why")" -eq 4 ]
tap $? "bad arguments: how to use it"

echo "1..$count"
