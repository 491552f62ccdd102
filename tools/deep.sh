#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs the parts of `make check-deep`: tools/deep.sh BUILD-DIR [PART...]
#
# The parts are models, miri, counts, long_counts, perturbed, portable, frameworks, memcheck, address
# and thread. Without PART, all of them run, models and miri beside the others. There is one more,
# memcheck_frameworks, which takes long. The script prints its random seed; NS_SEED=n repeats the
# random choices of that run. The last line is "N passed, N failed".
build=$1
shift
deep=$build/deep
target=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
mkdir -p "$deep"

NS_SEED=${NS_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
export NS_SEED
echo "NS_SEED=$NS_SEED"

# Count the results of run.sh, or of another runner whose last line has the same form: count NAME.
count() {
    summary=$(tail -n 1 "$log")
    ok=$(echo "$summary" | sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p')
    bad=$(echo "$summary" | sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p')
    if [ -z "$ok" ]; then
        sed 's/^/    /' "$log"
        ok=0 bad=1
    fi
    echo "$1: ${ok} passed, ${bad} failed"
    passed=$((passed + ok))
    failed=$((failed + bad))
}

# Show the log of several calls of run.sh, followed by one line with the sum of their results.
add_up() {
    grep -v '^[0-9]* passed' "$log"
    sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log" |
        awk '{ ok += $1; bad += $2 } END { print ok + 0 " passed, " bad + (ok == 0 && bad == 0) " failed" }' >>"$log"
}

# 1. The models. Prints how much each of them explored.
models() {
    RUSTFLAGS="--cfg loom -C debug-assertions" CARGO_TARGET_DIR=$target/loom timeout -k 5 3000 \
        cargo test --release --locked --lib models -- --nocapture --test-threads=2 >"$log" 2>&1
    status=$?
    grep -E 'executions|panicked|^test .*FAILED' "$log"
    result=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 passed, \2 failed/p' "$log")
    if [ $status -eq 0 ] || [ -n "$result" ]; then
        echo "${result:-0 passed, 1 failed}" >>"$log"
    fi
    count "models"
}

# 2. Miri, on the unit tests that it can run: undefined behaviour, under both aliasing models. It
# needs a nightly compiler, which is installed if it is missing and available.
miri() {
    if ! cargo +nightly miri --version >/dev/null 2>&1 &&
        ! timeout -k 5 120 rustup toolchain install nightly --profile minimal \
            --component miri,rust-src >"$log" 2>&1; then
        echo "miri: skipped, there is no nightly compiler with Miri"
        return
    fi
    for model in stacked tree; do
        flags=-Zmiri-disable-isolation
        [ $model = stacked ] || flags="$flags -Zmiri-tree-borrows"
        MIRIFLAGS=$flags CARGO_TARGET_DIR=$target/miri timeout -k 5 300 \
            cargo +nightly miri test --locked --lib >"$deep/miri-$model" 2>&1
        status=$?
        grep -E '^error|Undefined Behavior|-->|panicked|^test .*FAILED' "$deep/miri-$model"
        result=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 passed, \2 failed/p' "$deep/miri-$model")
        [ -n "$result" ] || { tail -n 20 "$deep/miri-$model" && result="0 passed, 1 failed"; }
        echo "$result (exit status $status)" | sed 's/ (exit status 0)//' >"$log"
        count "Miri, $model borrows"
    done
}

# 3. What one unit of each work costs, compared with bench/counts.csv.
counts() {
    for _ in $(seq "${NS_TRIES:-1}"); do
        timeout -k 5 300 bench/counts.py >"$log" 2>&1
        status=$?
        cat "$log"
        [ $status -ne 0 ] || break
    done
    echo "$((status == 0)) passed, $((status != 0)) failed" >>"$log"
    count "system calls and instructions for a unit of work"
}

# 4. The long tests with a hundredth of their counts, on the release build.
long_counts() {
    NS_COUNT=deep c-tests/run.sh -t 300 "$build"/c-tests/test-fm-* "$build"/c-tests/test-random \
        "$build"/c-tests/test-faults >"$log" 2>&1
    cat "$log"
    count "a hundredth of the long counts"
}

# Make a program that runs another program with the library of this name loaded first: wrapper NAME.
wrapper() {
    mkdir -p "$deep/$1"
    cp "$target/$1/release/libnunc_stans.so" "$deep/$1/libnunc-stans.so.0"
    printf '#!/bin/sh\nLD_PRELOAD=%s exec "$@"\n' "$PWD/$deep/$1/libnunc-stans.so.0" >"$deep/$1/run"
    chmod +x "$deep/$1/run"
}

# 5. Random delays, drawn from the seed, at named points between the steps of the protocols.
# fm-calls is left out: it counts system calls, and a delay makes some.
perturbed() {
    RUSTFLAGS="--cfg ns_perturb" CARGO_TARGET_DIR=$target/perturb \
        cargo rustc --quiet --release --locked --lib --crate-type cdylib >"$log" 2>&1 || {
        count "noise in the schedule"
        return
    }
    wrapper perturb
    programs=
    for name in bounded-steps caller-end caller-owner caller-process caller-turns cancel destroy fd-reuse forks groups groups-calls groups-cancel groups-exclusion groups-forks \
        groups-life groups-load groups-order groups-shutdown groups-suspend groups-wait idle-jobs inherited-pools io io-descriptors io-timeouts linger \
        log-without-pool own-descriptors own-threads process queue-limit refusals shutdown signals signals-adds \
        signals-others timers wait fm-descriptors fm-groups fm-jobs fm-life fm-memory fm-queue fm-time fm-waits; do
        programs="$programs $build/c-tests/test-$name"
    done
    # shellcheck disable=SC2086 # a list of words
    c-tests/run.sh -t 120 -w "$deep/perturb/run" $programs >"$log" 2>&1
    NS_SLOW=1 c-tests/run.sh -t 120 -w "$deep/perturb/run" "$build/c-tests/test-random" \
        "$build/c-tests/test-fm-pools" >>"$log" 2>&1
    add_up
    count "noise in the schedule"
}

# 6. The poller for other systems: the polling crate and poll(2), without our own epoll_wait and
# timerfd.
portable() {
    RUSTFLAGS="--cfg ns_portable_poller" CARGO_TARGET_DIR=$target/portable \
        cargo rustc --quiet --release --locked --lib --crate-type cdylib >"$log" 2>&1 || {
        count "the portable poller"
        return
    }
    wrapper portable
    programs=
    for name in bounded-steps caller-end caller-owner caller-process caller-turns cancel destroy fd-reuse forks groups groups-calls groups-cancel groups-exclusion groups-forks \
        groups-order groups-shutdown groups-suspend groups-wait idle-jobs inherited-pools io io-descriptors io-timeouts linger \
        own-descriptors own-threads process refusals shutdown signals signals-others timers fm-descriptors fm-groups fm-time; do
        programs="$programs $build/c-tests/test-$name"
    done
    # shellcheck disable=SC2086 # a list of words
    c-tests/run.sh -t 120 -w "$deep/portable/run" $programs >"$log" 2>&1
    cat "$log"
    count "the portable poller"
}

# 7. The tests that ask most of an event framework, over each of them.
frameworks() {
    NS_LIMIT=120 c-tests/frameworks.sh "$build" some >"$log" 2>&1
    cat "$log"
    count "event frameworks"
}

# 8. valgrind memcheck, on the release build. Left out: test-abi, which only looks at values and at
# the file, and test-linger, because valgrind runs no other thread while one is in close.
memcheck() {
    programs=
    for file in c-tests/test-*.c; do
        name=$(basename "$file" .c)
        [ "$name" = test-abi ] || [ "$name" = test-linger ] || programs="$programs $build/c-tests/$name"
    done
    # shellcheck disable=SC2086 # a list of words
    NS_SLOW=1 c-tests/run.sh -t 200 -w "valgrind -q --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=definite --child-silent-after-fork=yes --fair-sched=yes" \
        $programs >"$log" 2>&1
    cat "$log"
    count "valgrind memcheck"
}

# The same over each event framework, for the tests that use most of one.
memcheck_frameworks() {
    NS_SLOW=1 NS_LIMIT=300 NS_WRAP="valgrind -q --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=definite --child-silent-after-fork=yes --fair-sched=yes" \
        c-tests/frameworks.sh "$build" tools >"$log" 2>&1
    cat "$log"
    count "valgrind memcheck over event frameworks"
}

# Run the programs of link_tests over libevent and tevent, which are loaded without RTLD_DEEPBIND beside
# a sanitizer: over_frameworks SANITIZER WRAPPER.
over_frameworks() {
    # Not a link to its own directory: cargo, which goes through all directories to pack the crate, warns of a loop.
    mkdir -p "$deep/over-$1"
    ln -sfn "../$1" "$deep/over-$1/c-tests"
    NS_SLOW=1 NS_WRAP=$2 NS_LEAVE_OUT=forks_do_not_disturb c-tests/frameworks.sh "$deep/over-$1" tools \
        libevent:epoll libevent:poll libevent:select tevent:standard tevent:poll
}

# Build the library with a sanitizer, as an archive: sanitized SANITIZER CARGO-SETTINGS...
# The compiler is stable Rust: RUSTC_BOOTSTRAP lets it accept -Z. Precompiled code (Rust's standard
# library, the C library) is not instrumented.
sanitized() {
    sanitizer=$1
    shift
    env "$@" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$target/$sanitizer" \
        RUSTFLAGS="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer" \
        cargo rustc --quiet --release --locked --lib --crate-type staticlib --target "$host" \
        >"$log" 2>&1
}

# Compile the C tests and link them to it: link_tests SANITIZER COMPILE-FLAGS LINK-FLAGS TEST...
link_tests() {
    sanitizer=$1 compile=$2 link=$3
    shift 3
    mkdir -p "$deep/$sanitizer"
    for test; do
        case $test in
        test-nspr | test-original-shape | test-daemon-patterns)
            nspr=$(pkg-config --cflags --libs nspr) || return 1 ;;
        *) nspr= ;;
        esac
        # shellcheck disable=SC2086 # lists of words
        cc -std=c11 -g -O1 $compile -Iinclude -Ic-tests $nspr -c "c-tests/$test.c" \
            -o "$deep/$sanitizer/$test.o" &&
            cc -g "$deep/$sanitizer/$test.o" "$target/$sanitizer/$host/release/libnunc_stans.a" \
                $link -o "$deep/$sanitizer/$test" -lcmocka $nspr -lpthread -ldl -lm -lrt || return 1
    done >>"$log" 2>&1
}

# The tests that run with the library linked in. Left out, for both sanitizers (and forks_do_not_disturb of
# test-frameworks-least, for the reason of test-forks):
#   test-abi, test-dlopen  look at the shared library as a file
#   test-process, test-inherited-pools, test-forks, test-groups-forks, test-caller-process,
#   test-stats-forks
#                          their children make threads and allocate. gcc's AddressSanitizer does not
#                          guard its heap across a fork: a child of a process whose threads allocate
#                          hangs, with or without this library. ThreadSanitizer does not support it
#   test-own-threads       measures stacks, which ThreadSanitizer enlarges, and runs on the smallest
#                          stack, where instrumented code may not fit
#   test-signals-adds      intercepts sigaction, as the sanitizers do, and loads a second copy of
#                          the library
#   test-frameworks        exports functions that libevent has too; RTLD_DEEPBIND, which keeps them
#                          apart, does not work beside a sanitizer
sanitizer_tests() {
    for file in c-tests/test-*.c; do
        name=$(basename "$file" .c)
        case $name in
        test-abi | test-dlopen | test-process | test-inherited-pools | test-forks | test-groups-forks) ;;
        test-caller-process | test-stats-forks) ;;
        test-own-threads | test-signals-adds | test-frameworks) ;;
        *) echo "$name" ;;
        esac
    done
}

# 9. AddressSanitizer and LeakSanitizer, in the library's code and in the tests. With NS_SLOW,
# test-bad-input skips the cases that limit the address space, because the sanitizer needs all of
# it. test-daemon-patterns runs with its full count.
address() {
    # shellcheck disable=SC2046 # a list of words
    if sanitized address CARGO_PROFILE_RELEASE_DEBUG=1 &&
        link_tests address -fsanitize=address "-fsanitize=address -rdynamic" $(sanitizer_tests); then
        export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1
        # shellcheck disable=SC2046
        NS_SKIP=forks_do_not_disturb NS_SLOW=1 c-tests/run.sh -t 120 $(sanitizer_tests | grep -vx test-daemon-patterns |
            sed "s|^|$deep/address/|") >"$log" 2>&1
        c-tests/run.sh -t 120 "$deep/address/test-daemon-patterns" >>"$log" 2>&1
        over_frameworks address >>"$log" 2>&1
        unset ASAN_OPTIONS
        add_up
    fi
    count "AddressSanitizer, LeakSanitizer"
}

# 10. ThreadSanitizer, with the run-time library of Rust's compiler, because gcc's lacks functions
# that Rust's code calls. The code is optimised less, so that a report names the right function.
# Left out in addition to those above:
#   test-frameworks-refusals    waits in libevent and tevent, which are not instrumented: how their locks
#                               order what they do, the sanitizer does not see
#   test-faults, test-fm-calls  intercept the C library's thread functions, as the sanitizer does
#   test-fm-memory              counts threads and takes all descriptors; the sanitizer has a thread
#                               of its own and needs descriptors
thread() {
    runtime=$(find "$(rustc --print sysroot)/lib/rustlib/$host/lib" -name 'librustc-*_rt.tsan.a' | head -n 1)
    tests=$(sanitizer_tests | grep -vE '^test-(faults|fm-calls|fm-memory|frameworks-refusals)$')
    start=$deep/thread/tsan-start.o
    mkdir -p "$deep/thread"
    # shellcheck disable=SC2086 # a list of words
    if sanitized thread CARGO_PROFILE_RELEASE_DEBUG=1 CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 &&
        cc -O1 -c tools/tsan-start.c -o "$start" >"$log" 2>&1 &&
        link_tests thread -fsanitize=thread "$start -Wl,--whole-archive $runtime -Wl,--no-whole-archive -rdynamic" $tests; then
        # setarch -R: the run-time library does not accept every randomised address layout.
        export TSAN_OPTIONS="exitcode=66 allocator_may_return_null=1"
        # shellcheck disable=SC2046
        NS_SKIP=forks_do_not_disturb NS_SLOW=1 c-tests/run.sh -t 120 -w "setarch -R" $(echo "$tests" | sed "s|^|$deep/thread/|") >"$log" 2>&1
        unset TSAN_OPTIONS
        add_up
    fi
    count "ThreadSanitizer"
}

# All parts. Models and Miri need no clock: they run beside the others, and give way to them.
all() {
    others="counts long_counts perturbed portable frameworks memcheck address thread"
    beside=$deep/beside
    nice -n 19 "$0" "$build" models miri >"$beside" 2>&1 &
    trap 'kill $! 2>/dev/null; rm -f "$log"' EXIT
    for part in $others; do
        timed "$part"
    done
    wait $!
    grep -vE '^NS_SEED=|^[0-9]+ passed, [0-9]+ failed$' "$beside"
    tail -n 1 "$beside" >"$log"
    count "models and Miri"
}

timed() {
    before=$(date +%s)
    $1
    echo "$1 took $(($(date +%s) - before)) s"
}

begin=$(date +%s)
for part in ${*:-all}; do
    timed "$part"
done

echo "NS_SEED=$NS_SEED, $(($(date +%s) - begin)) s in all"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
