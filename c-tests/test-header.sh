#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The header compiles everywhere: each compiler and standard, in any order of includes, with
# NSPR's headers and without, under the code of old clients and of new ones that switch over all
# results. The results that 0.2 does not have are sound values in C++, and are found by bindgen.
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

# Switches over all results, those of 0.2 and the others.
cat >"$work/new-client.c" <<'C'
#define NS_EXTENDED_RESULTS
#include <nunc-stans.h>
#if !defined(NS_TIMEOUT) || !defined(NS_RUNNING)
#error the preprocessor does not find them
#endif
int number(ns_result_t rc);
int number(ns_result_t rc)
{
    switch (rc) {
    case NS_SUCCESS:
    case NS_SHUTDOWN:
    case NS_ALLOCATION_FAILURE:
    case NS_INVALID_REQUEST:
    case NS_INVALID_STATE:
    case NS_THREAD_FAILURE:
    case NS_DELETING:
        return 0;
    case NS_TIMEOUT:
        return 7;
    case NS_RUNNING:
        return 8;
    case NS_OVERLOADED:
        return 9;
    }
    return -1;
}
C

# Compares with the others only.
cat >"$work/comparing.c" <<'C'
#include <nunc-stans.h>
int ended(struct ns_job_t *job, const struct timeval *tv);
int ended(struct ns_job_t *job, const struct timeval *tv)
{
    ns_result_t rc = ns_job_timedwait(job, tv);
    if (rc == NS_TIMEOUT) {
        rc = ns_job_cancel(job);
    }
    return rc != NS_RUNNING;
}
C

# For C++11 and later only.
cat >"$work/constant.cpp" <<'C'
#include <nunc-stans.h>
#include <type_traits>
constexpr ns_result_t timeout = NS_TIMEOUT, running = NS_RUNNING;
static_assert(timeout == 7 && running == 8, "the numbers are those of the library");
static_assert(std::is_same<std::underlying_type<ns_result_t>::type, unsigned int>::value, "");
template <ns_result_t rc> struct named { static constexpr unsigned int number = rc; };
static_assert(named<NS_RUNNING>::number == 8, "");
#if __cplusplus >= 201703L
/* Well-formed only for an enum whose underlying type is given. */
static_assert(ns_result_t{8u} == NS_RUNNING);
#endif
C

# The library's answer, which no compiler sees through; run under the sanitizers.
cat >"$work/answer.c" <<'C'
#include <nunc-stans.h>
ns_result_t ns_job_cancel(struct ns_job_t *job)
{
    return job == NULL ? (ns_result_t)8 : NS_SUCCESS;
}
C
cat >"$work/asks.cpp" <<'C'
#include <nunc-stans.h>
int main()
{
    ns_result_t rc = ns_job_cancel(nullptr);
    ns_result_t *volatile at = &rc;
    return *at == NS_RUNNING ? 0 : 1;
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
        for file in first last twice old-client new-client comparing; do
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

# sound COMPILER STANDARDS: in C++ all results are values of the enum.
sound() {
    for standard in $2; do
        try "$1 $standard, all results are constants of the enum" "$1" -fsyntax-only -Wall -Wextra \
            -Wpedantic -Werror "-std=$standard" "-I$include" -DNS_NO_NSPR "$work/constant.cpp"
    done
    for extended in "" -DNS_EXTENDED_RESULTS; do
        # shellcheck disable=SC2086 # a word or none
        try "$1, an answer of 8 is defined behaviour $extended" sh -c '"$0" -x c -c "$1" -o "$2.o" \
            "$3" -DNS_NO_NSPR && shift 1 && "$0" -fsanitize=undefined,enum \
            -fno-sanitize-recover=all -g "$2" -DNS_NO_NSPR $4 "$3" "$1.o" -o "$1" && "$1"' \
            "$1" "$work/answer.c" "$work/asks" "-I$include" "$work/asks.cpp" $extended
    done
}
# As many of the newest as there are: there, what is outside an enum is no constant.
for compiler in g++ clang++ clang++-16 clang++-19; do
    if command -v "$compiler" >/dev/null; then
        sound "$compiler" "c++11 c++17 c++20"
    fi
done

# Without being asked for they are no enumerators, and asked for they are.
sed '/define NS_EXTENDED_RESULTS/d' "$work/new-client.c" >"$work/unasked.c"
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    if "$compiler" -Wswitch -Werror -fsyntax-only "-I$include" "$work/unasked.c" >/dev/null 2>&1 ||
        "$compiler" -Wswitch -Werror -fsyntax-only "-I$include" -DNS_EXTENDED_RESULTS \
            "$work/old-client.c" >/dev/null 2>&1; then
        try "$compiler: -Wswitch counts the results that were asked for" false
    else
        try "$compiler: -Wswitch counts the results that were asked for" true
    fi
done

# Rust's bindings.
cat >"$work/bound.rs" <<'RS'
#![allow(warnings)]
include!("bindings.rs");

fn number(rc: ns_result_t) -> u32 {
    use _ns_result_t::*;
    match rc {
        NS_SUCCESS | NS_SHUTDOWN | NS_ALLOCATION_FAILURE | NS_INVALID_REQUEST => 0,
        NS_INVALID_STATE | NS_THREAD_FAILURE | NS_DELETING => 0,
        NS_TIMEOUT => 7,
        NS_RUNNING => 8,
        NS_OVERLOADED => 9,
    }
}

#[test]
fn every_result_is_there() {
    assert_eq!(number(_ns_result_t::NS_TIMEOUT), _ns_result_t::NS_TIMEOUT as u32);
    assert_eq!(number(_ns_result_t::NS_RUNNING), _ns_result_t::NS_RUNNING as u32);
    assert_eq!(std::mem::size_of::<ns_result_t>(), 4);
    assert_eq!(NS_JOB_UNARMED, 1024);
}
RS
if command -v bindgen >/dev/null && command -v rustc >/dev/null; then
    # Debian's bindgen does not understand the names that libclang 16 and later give to unnamed types.
    oldest=$(find /usr/lib/llvm-*/lib -maxdepth 1 -name 'libclang.so*' 2>/dev/null | sort -V | head -n 1)
    [ -z "$oldest" ] || export LIBCLANG_PATH="${oldest%/*}"
    try "bindgen finds every result" sh -c 'bindgen --rustified-enum _ns_result_t -o \
        "$0/bindings.rs" "$1/nunc-stans.h" -- -DNS_EXTENDED_RESULTS -DNS_NO_NSPR &&
        rustc --edition 2021 --test "$0/bound.rs" -o "$0/bound" && "$0/bound"' "$work" "$include"
else
    skip "there is no bindgen, or no rustc"
fi

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
