#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The header compiles everywhere: each compiler and standard, in any order of includes, with
# NSPR's headers and without, and under the code of old clients.
#
#   c-tests/test-header.sh [INCLUDE-DIRECTORY]
include=${1:-$(dirname "$0")/../include}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/first.c" <<'C'
#include <nunc-stans.h>
#include <stdio.h>
#include <string.h>
int unused_by_others = sizeof(struct ns_thrpool_config) > 0;
C

cat >"$work/last.c" <<'C'
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <nunc-stans.h>
ns_job_type_t type_of(struct ns_job_t *job);
ns_job_type_t type_of(struct ns_job_t *job) { return ns_job_get_type(job); }
C

cat >"$work/twice.c" <<'C'
#include <nunc-stans.h>
#include <nunc-stans.h>
#ifndef NS_THRPOOL_H
#error the include guard has another name
#endif
va_list *a_va_list;
struct timeval a_time;
uint_fast16_t an_integer;
size_t a_size;
C

cat >"$work/old-client.c" <<'C'
#include <stdio.h>
#include <string.h>
#include <nunc-stans.h>

/* Old clients make these for themselves. */
typedef struct ns_job_t ns_job_t;
typedef struct ns_thrpool_config ns_thrpool_config_t;

struct connection {
    struct PRFileDesc *fd;
    ns_thrpool_t *tp;
    struct ns_job_t *job;
};

void on_event(struct ns_job_t *);
void on_close(ns_job_t *job);
static const char *text(ns_result_t rc);

static const char *text(ns_result_t rc)
{
    switch (rc) {
    case NS_SUCCESS:
        return "success";
    case NS_SHUTDOWN:
    case NS_ALLOCATION_FAILURE:
    case NS_INVALID_REQUEST:
    case NS_INVALID_STATE:
    case NS_THREAD_FAILURE:
    case NS_DELETING:
        return "no success";
    }
    return "?";
}

void on_close(ns_job_t *job)
{
    printf("closed %p\n", ns_job_get_data(job));
}

void on_event(struct ns_job_t *job)
{
    struct connection *c = (struct connection *)ns_job_get_data(job);
    ns_job_type_t type = ns_job_get_type(job);
    if (c == NULL || c->fd != ns_job_get_fd(job) || c->tp != ns_job_get_tp(job)) {
        return;
    }
    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job)) || !NS_JOB_IS_READ(type)) {
        printf("timed out, type %lu\n", (unsigned long)type);
    } else if (NS_JOB_IS_IO(type) && NS_JOB_IS_THREAD(type) && !NS_JOB_IS_PERSIST(type)) {
        NS_JOB_UNSET_READ(type);
        NS_JOB_SET_WRITE(type);
        NS_JOB_UNSET_THREAD(type);
        if (ns_add_io_job(c->tp, c->fd, type, on_event, c, &c->job) != NS_SUCCESS) {
            ns_job_set_done_cb(job, on_close);
        }
    }
    if (ns_job_is_func(job, on_event) && ns_job_rearm(job) != NS_SUCCESS) {
        ns_job_done(job);
    }
}

int main(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_t *also = &config;
    struct timeval tv = {1, 0};
    struct connection c;
    struct ns_job_t *job = NULL;
    ns_result_t rc;
    memset(&c, 0, sizeof c);
    ns_thrpool_config_init(also);
    config.max_threads = 3;
    config.stacksize = 0;
    c.tp = ns_thrpool_new(&config);
    rc = ns_add_timeout_job(c.tp, &tv, NS_JOB_TIMER | NS_JOB_THREAD, on_event, &c, &job);
    printf("%s\n", text(rc));
    rc = ns_add_io_timeout_job(c.tp, c.fd, &tv, NS_JOB_READ | NS_JOB_PRESERVE_FD, on_event, &c,
                               NULL);
    printf("%d\n", (int)rc);
    rc = ns_add_job(c.tp, NS_JOB_NONE, on_event, NULL, NULL);
    if (rc == NS_SUCCESS && !ns_thrpool_is_shutdown(c.tp)) {
        ns_thrpool_shutdown(c.tp);
    }
    rc = ns_thrpool_wait(c.tp);
    ns_thrpool_destroy(c.tp);
    return rc == NS_SUCCESS ? 0 : 1;
}
C

nspr=
if command -v pkg-config >/dev/null && pkg-config --exists nspr; then
    nspr=$(pkg-config --cflags nspr)
fi

tests=0
failed=0

# try NAME COMMAND...: one test.
try() {
    name=$1
    shift
    tests=$((tests + 1))
    if "$@" >"$work/out" 2>&1; then
        echo "ok $tests - $name"
    else
        echo "not ok $tests - $name"
        sed 's/^/# /' "$work/out"
        failed=$((failed + 1))
    fi
}

# skip WHAT: one test that can't be made here.
skip() {
    tests=$((tests + 1))
    echo "ok $tests - # SKIP $1"
}

# without_nspr COMPILER LANGUAGE: the options by which it finds all its headers but NSPR's. What it
# searches is searched in the same order; where NSPR is, a directory of links to all else stands in.
without_nspr() {
    echo "-nostdinc"
    "$1" -x "$2" -E -v /dev/null 2>&1 | sed -n '/<\.\.\.> search starts/,/^End of/s/^ //p' |
        while read -r directory; do
            farm=$work/include$(echo "$directory" | tr / _)
            if [ ! -e "$directory/nspr.h" ] && [ ! -e "$directory/nspr" ] &&
                [ ! -e "$directory/nspr4" ]; then
                farm=$directory
            elif [ ! -d "$farm" ]; then
                mkdir "$farm"
                ln -s "$(cd "$directory" && pwd)"/* "$farm"
                rm -f "$farm/nspr.h" "$farm/nspr" "$farm/nspr4"
            fi
            echo "-isystem $farm"
        done
}

# all COMPILER LANGUAGE STANDARDS: every file, standard and sort of NSPR.
all() {
    compiler=$1
    language=$2
    if ! command -v "$compiler" >/dev/null; then
        skip "there is no $compiler"
        return 0
    fi
    absent=$(without_nspr "$compiler" "$language")
    strict="-Wall -Wextra -Wpedantic -Werror -fsyntax-only"
    for standard in $3; do
        for file in first last twice old-client; do
            # shellcheck disable=SC2086 # words
            {
                set -- "$compiler" -x "$language" "-std=$standard" $strict "-I$include"
                try "$compiler $standard $file, NSPR where the compiler looks" "$@" "$work/$file.c"
                try "$compiler $standard $file, NSPR nowhere" "$@" $absent "$work/$file.c"
                try "$compiler $standard $file, NS_NO_NSPR" "$@" -DNS_NO_NSPR "$work/$file.c"
                if [ -n "$nspr" ]; then
                    try "$compiler $standard $file, NSPR in the path" "$@" $nspr "$work/$file.c"
                fi
            }
        done
        # shellcheck disable=SC2086 # words
        try "$compiler $standard, NSPR nowhere is that" "$compiler" -x "$language" \
            "-std=$standard" -fsyntax-only "-I$include" $absent "$work/no-nspr.c"
    done
}

printf '%s\n' '#include <nunc-stans.h>' '#ifdef nspr_h___' '#error included' '#endif' \
    >"$work/no-nspr.c"

[ -n "$nspr" ] || skip "there is no NSPR"
all gcc c "c99 c11 c17"
all clang c "c99 c11 c17"
all g++ c++ "c++11 c++20"
all clang++ c++ "c++11 c++20"

# What the compilers let through by accident would show here.
if [ -n "$nspr" ] && command -v gcc >/dev/null; then
    printf '%s\n' '#include <nunc-stans.h>' 'PRFileDesc *fd_of(struct ns_job_t *job);' \
        'PRFileDesc *fd_of(struct ns_job_t *job) { return ns_job_get_fd(job); }' >"$work/nspr.c"
    # shellcheck disable=SC2086 # words
    try "NSPR's own type is the header's" gcc -Wall -Wextra -Werror -fsyntax-only "-I$include" \
        $nspr "$work/nspr.c"
fi
# shellcheck disable=SC2086 # words
try "NS_NO_NSPR keeps NSPR out" "${CC:-cc}" -fsyntax-only "-I$include" $nspr -DNS_NO_NSPR \
    "$work/no-nspr.c"
printf '%s\n' '#include <nunc-stans.h>' 'struct ns_thrpool_t pool;' >"$work/opaque.c"
if "${CC:-cc}" -fsyntax-only "-I$include" "$work/opaque.c" >/dev/null 2>&1; then
    try "pools are opaque" false
else
    try "pools are opaque" true
fi

echo "1..$tests"
[ "$failed" -eq 0 ]
