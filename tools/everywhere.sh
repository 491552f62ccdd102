#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Build the library and the C tests for other architectures and run them: tools/everywhere.sh PART...
#
# The parts are architectures, as make's ARCH has them, and
#   oldest    the library compiles, without a warning, with the Rust that Cargo.toml names
#   crate     it can be packed for crates.io, without a warning
#   systems   it compiles for FreeBSD and macOS; there is no C compiler for these, and nothing is run
#
# i686 and musl run on an x86-64 kernel by themselves, the others under qemu-user. The last line is
# "N passed, N failed".
#
# The 32-bit ones also run some tests that are compiled with a time_t of 64 bits. With musl, examples are also
# linked statically and run.
#
# Left out everywhere: the programs that need NSPR of that architecture (test-nspr, test-original-shape,
# test-daemon-patterns).
# Left out with musl: test-forks, which takes the place of glibc's malloc and calls that.
# Left out under qemu-user, which translates one process and its system calls:
#   test-dlopen          runs itself anew: the kernel does not know the format of the program
#   test-refusals, test-bounded-steps
#                        answer system calls by seccomp, which qemu does not have
#   test-realtime        needs real-time priorities to hold: qemu's own locks are between
#   test-fm-calls        counts the system calls of the process, which are qemu's too
#   test-fm-memory, test-bad-input
#                        limit the address space, in which qemu itself lives
#   test-forks, test-groups-forks, test-inherited-pools, test-caller-process, test-stats-forks,
#   forks_do_not_disturb
#                        a child of a process with threads makes threads, at which qemu fails an assertion
#                        of its own (qemu_plugin_vcpu_init_hook)
#   test-frameworks, test-frameworks-refusals, which_have_a_wait_descriptor
#                        need libevent and tevent of that architecture, which i686 has not either
#   a_handler_is_called_by_its_own_conventions_where_nobody_watches, real_time_signals_are_watched_too
#                        qemu keeps some of the real-time signals to itself
#   signals_may_storm_while_jobs_come_and_go
#                        changes what a signal does while it arrives without end: qemu reads SIG_IGN as an
#                        address and jumps to it, as it does in a program that does this and nothing else
#   fm49_no_test_sleeps_to_be_right_or_needs_ipv6
#                        reads a directory, whose 64-bit offsets do not fit 32-bit programs under a 64-bit qemu
#   all_signals_blocked_the_loop_comes_round_by_itself
#                        a thread with all signals blocked waits on what was closed: qemu does not come back
make="${MAKE:-make} --no-print-directory"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0

# What the programs of an architecture are run with, and what is left out: how ARCH.
how() {
    run='' left_out='' more=examples
    case $1 in
    aarch64) run="qemu-aarch64 -L /usr/aarch64-linux-gnu" ;;
    armhf) run="qemu-arm -L /usr/arm-linux-gnueabihf" ;;
    riscv64) run="qemu-riscv64 -L /usr/riscv64-linux-gnu" ;;
    s390x) run="qemu-s390x -L /usr/s390x-linux-gnu" ;;
    esac
    # The kernel can't start an example under qemu.
    [ -z "$run" ] || more=
    case $1 in
    armhf | i686) more="$more time64-tests" ;;
    esac
    # There are no such libraries of another architecture.
    left_out="frameworks frameworks-refusals"
    [ -z "$run" ] || left_out="dlopen refusals bounded-steps realtime fm-calls fm-memory bad-input \
        forks groups-forks inherited-pools caller-process stats-forks frameworks frameworks-refusals"
    NS_SKIP="a_handler_is_called_by_its_own_conventions_where_nobody_watches forks_do_not_disturb \
real_time_signals_are_watched_too signals_may_storm_while_jobs_come_and_go which_have_a_wait_descriptor fm49_no_test_sleeps_to_be_right_or_needs_ipv6 all_signals_blocked_the_loop_comes_round_by_itself"
    # valgrind is this machine's.
    [ -n "$run" ] || NS_SKIP="which_have_a_wait_descriptor valgrind_finds_nothing_in_a_small_form_of_it_all \
valgrind_finds_nothing_in_a_small_form_of_it"
    export NS_SKIP
}

# Count and show a result; of a failure also the end of the log: tell STATUS WHAT.
tell() {
    if [ "$1" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok: $2"
    else
        failed=$((failed + 1))
        echo "FAILED: $2"
        tail -n 40 "$log"
    fi
}

# Compile without linking: compiles WHAT CARGO-ARGUMENTS...
compiles() {
    what=$1
    shift
    RUSTFLAGS="-D warnings" timeout -k 5 600 cargo "$@" >"$log" 2>&1
    tell $? "$what"
}

oldest() {
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    rustup toolchain list 2>/dev/null | grep -q "^$version.0-" ||
        timeout -k 5 300 rustup toolchain install "$version.0" --profile minimal >"$log" 2>&1 || {
        echo "skipped: rustup does not bring Rust $version"
        return
    }
    compiles "compiles with Rust $version" "+$version.0" check --quiet --locked --lib \
        --target-dir "${CARGO_TARGET_DIR:-target}/oldest"
}

crate() {
    timeout -k 5 600 cargo publish --dry-run --locked --allow-dirty --no-verify >"$log" 2>&1 &&
        ! grep '^warning' "$log" | grep -v 'aborting upload due to dry run'
    tell $? "it can be packed for crates.io, without a warning"
}

systems() {
    for triple in x86_64-unknown-freebsd aarch64-apple-darwin; do
        rustup target add "$triple" >"$log" 2>&1 || {
            echo "skipped: rustup does not bring $triple"
            continue
        }
        # "true" stands for the C compiler, which makes the shim: to check, nothing has to be linked.
        variable=$(echo "$triple" | tr - _)
        export "CC_$variable=true" "AR_$variable=true"
        compiles "compiles for $triple, without the C shim" check --quiet --locked --lib --target "$triple"
    done
}

# Programs of one file. Debian's musl-gcc would take unwinding from glibc's libgcc_eh, which needs glibc; a system
# of musl's own has another.
statically() {
    mkdir -p build/musl/static
    for example in cancel io-timeout run-now signals timers; do
        program=build/musl/static/$example
        musl-gcc -std=c11 -Wall -Wextra -Werror -O2 -Iinclude "examples/$example.c" -o "$program" -static \
            build/musl/lib/libnunc-stans.a -nodefaultlibs -Lbuild/musl/link -l:libgcc_s.so -lc -lgcc >"$log" 2>&1 &&
            ! readelf -l "$program" | grep -q INTERP && timeout -k 5 60 "$program" >"$log" 2>&1
        tell $? "musl, static: $example"
    done
}

for arch; do
    case $arch in
    oldest | systems | crate)
        "$arch"
        continue
        ;;
    esac
    how "$arch"
    triple=$($make -s ARCH="$arch" print-triple)
    rustup target list --installed 2>/dev/null | grep -qx "$triple" || rustup target add "$triple" >/dev/null 2>&1
    # shellcheck disable=SC2086 # words
    if ! $make ARCH="$arch" all >"$log" 2>&1 || ! $make -j2 ARCH="$arch" c-tests $more >>"$log" 2>&1; then
        grep -A 5 'error[:[]\|undefined reference\|^make.* Error ' "$log" | head -n 40
        echo "$arch: does not build"
        failed=$((failed + 1))
        continue
    fi
    programs=
    [ ! -d "build/$arch/time64" ] || programs=$(echo "build/$arch"/time64/test-*)
    for program in ${NS_ONLY:-"build/$arch"/c-tests/test-*}; do
        name=$(basename "$program")
        case " $left_out " in
        *[!a-z-]"${name#test-}"[!a-z-]*) ;;
        *) programs="$programs build/$arch/c-tests/$name" ;;
        esac
    done
    unset NS_QEMU
    [ -z "$run" ] || export NS_QEMU=1
    # shellcheck disable=SC2086 # words
    NS_SLOW=1 NS_NO_NSPR=1 NS_EXAMPLES=build/$arch/examples NS_LIBRARY=build/$arch/lib/libnunc-stans.so.0 \
        c-tests/run.sh -t 300 -w "$run" $programs >"$log" 2>&1
    grep -v ' 0 failed, 0 skipped' "$log" | grep -v '^[0-9]* passed'
    summary=$(tail -n 1 "$log")
    echo "$arch: $summary"
    passed=$((passed + $(echo "$summary" | sed 's/ passed.*//')))
    failed=$((failed + $(echo "$summary" | sed 's/.*passed, //; s/ failed//')))
    [ "$arch" != musl ] || statically
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
