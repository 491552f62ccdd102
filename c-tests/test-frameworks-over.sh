#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A little of everything over each event framework; and libraries that are not what they should be.
. c-tests/tap.sh

for framework in native portable libevent:epoll libevent:poll libevent:select tevent:standard \
    tevent:poll custom; do
    c-tests/frameworks.sh build least "$framework" >"$work/why" 2>&1
    tap $? "a little of everything over $framework"
done

# over NAME FILE: the program with this framework, and with FILE, if given, in the library's place.
over() {
    NUNC_STANS_FRAMEWORK=$1 LD_LIBRARY_PATH=$work/fake build/c-tests/one-pool >"$work/why" 2>&1
}

# The fake has every function but this, in whose place it has $instead: fake FILE LACKS FUNCTION...
fake() {
    file=$1 lacks=$2
    shift 2
    rm -rf "$work/fake"
    mkdir "$work/fake"
    for function; do
        if [ "$function" = "$lacks" ]; then echo "$instead"; else echo "void $function(void) {}"; fi
    done | cc -shared -fPIC -x c - -o "$work/fake/$file"
}

instead=
mkdir "$work/fake"
over tevent && over libevent
tap $? "the libraries are found where the system has them"

rm -rf "$work/fake" && mkdir "$work/fake" && : >"$work/fake/libevent_core-2.1.so.7"
! over libevent && grep -q 'ns_thrpool_new: cannot load libevent_core-2\.1\.so\.7' "$work/why"
tap $? "no pool without libevent, and the log names it"

rm -rf "$work/fake" && mkdir "$work/fake" && : >"$work/fake/libtevent.so.0"
! over tevent:poll && grep -q 'ns_thrpool_new: cannot load libtevent\.so\.0' "$work/why"
tap $? "no pool without libtevent, and the log names it"

rm -rf "$work/fake" && mkdir "$work/fake" && : >"$work/fake/libtalloc.so.2"
! over tevent && grep -q 'ns_thrpool_new: cannot load libtalloc\.so\.2' "$work/why"
tap $? "no pool without libtalloc, and the log names it"

# Of the last one the library has the name, without an address: dlsym does not call that an error.
for lacks in event_config_new event_base_loop event_del; do
    [ $lacks != event_del ] || instead="__asm__(\".globl event_del; .set event_del, 0\");"
    fake libevent_core-2.1.so.7 $lacks event_config_new event_config_free event_config_set_flag \
        event_config_avoid_method event_base_new_with_config event_base_free event_base_loop \
        event_base_loopbreak event_new event_assign event_free event_add event_del
    ! over libevent && grep -q "libevent_core-2\.1\.so\.7 has no function $lacks" "$work/why"
    tap $? "no pool if libevent lacks $lacks, and the log names both"
done
instead=

for lacks in tevent_context_init_byname _tevent_add_fd _tevent_loop_once; do
    fake libtevent.so.0 $lacks tevent_context_init_byname tevent_set_debug _tevent_add_fd tevent_fd_set_flags \
        tevent_fd_get_flags _tevent_add_timer _tevent_loop_once
    ! over tevent && grep -q "libtevent\.so\.0 has no function $lacks" "$work/why"
    tap $? "no pool if tevent lacks $lacks, and the log names both"
done

echo "1..$count"
