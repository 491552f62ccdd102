#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A C++ exception that leaves a callback ends the process, rather than the thread under the pool's
# feet. Run in the project's root.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/throws.cpp" <<'PROGRAM'
#include <nunc-stans.h>
#include <sys/resource.h>
#include <cstdlib>

static void throws(struct ns_job_t *) { throw 1; }

int main(int argc, char **)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    ns_add_job(tp, argc > 1 ? NS_JOB_THREAD : NS_JOB_NONE, throws, nullptr, nullptr);
    ns_thrpool_wait(tp); // for ever: nobody shuts it down
    return EXIT_SUCCESS;
}
PROGRAM
${CXX:-c++} -std=c++11 -Wall -Wextra -Werror -Iinclude "$work/throws.cpp" -o "$work/throws" \
    -Lbuild/lib -Wl,-rpath,"$PWD/build/lib" -lnunc-stans >"$work/why" 2>&1 ||
    { echo "not ok 1 - the program compiles" && sed 's/^/# /' "$work/why" && exit 1; }

count=0
for where in loop worker; do
    count=$((count + 1))
    case $where in
    loop) timeout 20 "$work/throws" >"$work/why" 2>&1 ;;
    worker) timeout 20 "$work/throws" worker >"$work/why" 2>&1 ;;
    esac
    status=$?
    name="an exception out of a callback in the $where ends the process by SIGABRT"
    if [ $status -eq 134 ]; then
        echo "ok $count - $name"
    else
        echo "not ok $count - $name"
        echo "# exit status $status"
    fi
done
echo "1..$count"
