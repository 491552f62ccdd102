#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A process that has the names of NSPR's functions, without an address: dlsym does not call that an error. The
# library takes it for a process without NSPR. Run in the project's root.
. c-tests/tap.sh

for function in PR_FileDesc2NativeHandle PR_Close; do
    echo "__asm__(\".globl $function; .set $function, 0\");"
done | cc -shared -fPIC -x c - -o "$work/fake.so"
LD_PRELOAD=$work/fake.so build/c-tests/test-no-nspr >"$work/why" 2>&1
tap $? "functions of NSPR without an address are no NSPR"
echo "1..$count"
