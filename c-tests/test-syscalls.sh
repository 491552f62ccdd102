#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# System calls, counted with strace: what is to make none makes none. Run in the project's root.
# NS_IDLE_SECONDS is how long an idle pool is watched: 3 if it is not set.
. c-tests/tap.sh

if ! command -v strace >/dev/null || ! strace -o /dev/null true 2>/dev/null; then
    echo "ok 1 - # SKIP strace is not there or may not trace"
    exit 0
fi

${CC:-cc} -std=c11 -O1 -Iinclude -Ic-tests c-tests/traced.c -o "$work/traced" -Lbuild/lib \
    -lnunc-stans -lcmocka -lpthread -Wl,-rpath,"$PWD/build/lib" >"$work/why" 2>&1
status=$?
[ "$status" -eq 0 ] || tap "$status" "the traced program compiles"

# Calls of the allocator's, also the end of one that another thread's came in between.
allocator='^[0-9]+ +(<\.\.\. )?(brk|mmap|munmap|madvise|mprotect|mremap)(\(| resumed)'

# trace MODE: what each thread calls between the marks, into $work/calls as "THREAD CALL(...".
# The lines of the program's own main thread are in $work/main, all others in $work/others.
trace() {
    rm -f "$work/all" "$work/calls" "$work/main" "$work/others"
    timeout $((60 + ${NS_IDLE_SECONDS:-3})) strace -f -o "$work/all" "$work/traced" "$1" >"$work/why" 2>&1 || return 1
    # The end of the first mark's own call is not counted.
    awk '/write\(9999, "end"/ { inside = 0 }
         inside && !/write resumed.*EBADF/ { print }
         /write\(9999, "begin"/ { inside = 1; begun = 1 }
         END { exit !begun || inside }' "$work/all" >"$work/calls" || return 1
    main=$(awk '/write\(9999, "begin"/ { print $1; exit }' "$work/all")
    awk -v main="$main" '$1 == main' "$work/calls" >"$work/main"
    awk -v main="$main" '$1 != main' "$work/calls" >"$work/others"
}

# calls FILE NAME: how often this call was begun.
calls() {
    grep -c "^[0-9]* *$2(" "$1" || true
}

trace busy-workers &&
    ! grep -v -E "$allocator" "$work/main" >"$work/why"
tap $? "fm15: adding threaded jobs for busy workers makes no system call but the allocator's"

trace idle && cp "$work/others" "$work/why" && [ ! -s "$work/others" ]
tap $? "an idle pool makes no system call in ${NS_IDLE_SECONDS:-3} s"

trace echo && [ "$(calls "$work/calls" epoll_wait)" -gt 0 ] &&
    ! grep epoll_ctl "$work/calls" >"$work/why"
tap $? "a job of the loop's that is rearmed in its callback makes no epoll_ctl"

trace echo && turns=$(calls "$work/others" '[a-z0-9_]*') &&
    echo "$turns calls for 1000 round trips" >"$work/why" && [ "$turns" -le 3100 ]
tap $? "a round trip takes the loop three calls: wait, read, write"

trace blocked-loop && grep 'write(' "$work/main" >"$work/why"
[ -s "$work/main" ] && ! grep -v -E "$allocator" \
    "$work/main" >"$work/why"
tap $? "fm47: adds to a loop that is in a callback write nothing"

# Each wake is one byte, and the loop takes it in the turn that it begins.
trace flood && writes=$(calls "$work/calls" write) && waits=$(calls "$work/others" epoll_wait) &&
    echo "$writes writes, $waits turns" >"$work/why" && [ "$writes" -le $((waits + 1)) ] &&
    ! grep 'write(' "$work/calls" | grep -v ', 1\( <\|)\)' >"$work/why"
tap $? "fm47: a flood of adds writes one byte a turn at most"

[ -s "$work/calls" ] && ! grep 'write(.*EAGAIN' "$work/calls" >"$work/why"
tap $? "fm16: the pipe never fills up"

# Through the pipe and the poller a child could reach its parent's pool. What destroy takes out of
# a poller is not in it: that is an empty one, put where the parent's was.
trace fork && child=$(awk '/write\(9999, "child"/ { print $1; exit }' "$work/calls") &&
    awk -v child="$child" '$1 == child' "$work/calls" >"$work/child" &&
    grep -c -e '--- SIGUSR1' "$work/child" >"$work/why" && [ "$(cat "$work/why")" -ge 12 ] &&
    ! grep -E ' (write|epoll_ctl)\(' "$work/child" | grep -v -E 'write\(9999,|_DEL.*ENOENT' \
        >"$work/why"
tap $? "signals in a forked child, however early, and destroy reach nothing of the parent's"
