#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# A pool in the event loops of GLib, libuv and libevent: the examples in-*, each of which writes back what
# it reads. Run in the project's root.
. c-tests/tap.sh
examples=${B:-build}/examples
host=
clean_up() {
    [ -z "$host" ] || kill -KILL "$host" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT

# wrote LINE: the host has written it.
wrote() { grep -qxF "$1" "$work/why"; }
is_gone() { ! kill -0 "$host"; }

# sleeps: how often the threads of the host have gone to sleep, all together.
sleeps() { cat /proc/"$host"/task/*/status | awk '/^voluntary_ctxt/ { n += $2 } END { print n }'; }

# sleeps_through: for a second none of its threads wakes.
sleeps_through() {
    before=$(sleeps)
    sleep 1
    after=$(sleeps)
    echo "$before sleeps, a second later $after" >>"$work/why"
    [ "$before" -gt 0 ] && [ "$before" = "$after" ]
}

for library in GLib libuv libevent; do
    name=in-$(echo $library | tr GL gl)
    mkfifo "$work/$name"
    "$examples/$name" <"$work/$name" >"$work/why" 2>&1 &
    host=$!
    exec 3>"$work/$name"
    eventually wrote "a timer of $library's" && eventually wrote "a timer of the pool's"
    tap $? "$name: timers of both"

    echo one >&3
    eventually wrote one && echo two >&3 && eventually wrote two
    tap $? "$name: jobs in the host's thread and in a worker"

    # At first it may still be on its way to sleep.
    sleeps_through || sleeps_through || sleeps_through
    tap $? "$name: idle without a wake-up"

    echo three >&3
    eventually wrote three
    tap $? "$name: and awake again"

    exec 3>&-
    eventually is_gone && wait "$host"
    status=$?
    [ $status -eq 0 ] || echo "exit status $status" >>"$work/why"
    tap $status "$name: it ends with its input"
    host=
done
echo "1..$count"
