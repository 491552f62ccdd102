#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The tests of the other languages and of the adapters, against an installed library:
# tools/languages.sh BUILD-DIR [PART...]. The last line is "N passed, N failed".
build=$(cd "$1" && pwd)
shift
work=$build/languages
root=$work/root
mkdir -p "$work"
passed=0
failed=0
log=$work/log

# What is installed is all that they see of the library.
unset MAKEFLAGS MAKELEVEL
make --no-print-directory install DESTDIR= "prefix=$root" >"$log" 2>&1 || { cat "$log" && exit 1; }
export PKG_CONFIG_PATH="$root/lib/pkgconfig" LD_LIBRARY_PATH="$root/lib"

# Add what a log counted, whose last line is "N passed, N failed".
add_up() {
    summary=$(tail -n 1 "$log")
    ok=$(echo "$summary" | sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p')
    bad=$(echo "$summary" | sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p')
    passed=$((passed + ${ok:-0}))
    failed=$((failed + ${bad:-1}))
    grep -v '^[0-9]* passed, [0-9]* failed$' "$log"
    return 0
}

# Count one step: step NAME COMMAND... Its output is shown only if it fails.
step() {
    name=$1
    shift
    if timeout -k 5 200 "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "ok: $name"
    else
        echo "FAILED: $name, status $?"
        failed=$((failed + 1))
        tail -n 60 "$log" | sed 's/^/    /'
        return 1
    fi
}

cpp() {
    tests=bindings/cpp/tests
    out=$work/cpp
    mkdir -p "$out"
    warnings="-Wall -Wextra -Wpedantic -Wold-style-cast -Wshadow -Werror -g"
    memory="-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
    threads="-O1 -fsanitize=thread"
    # Program, source, compiler and options of each; two are compiled at a time.
    cat >"$out/programs" <<PROGRAMS
callbacks-asan $tests/callbacks.cpp g++ -std=c++17 $memory
coroutines-asan $tests/coroutines.cpp clang++-16 -std=c++20 $memory
coroutines-asan-g++ $tests/coroutines.cpp g++ -std=c++20 $memory
callbacks-tsan $tests/callbacks.cpp clang++-16 -std=c++17 $threads
coroutines-tsan $tests/coroutines.cpp g++ -std=c++20 $threads
echo-g++ examples/echo-coroutines.cpp g++ -std=c++20 -O2
echo-clang++ examples/echo-coroutines.cpp clang++-16 -std=c++20 -O2
PROGRAMS
    xargs -P 2 -L 1 sh -c 'program=$1 source=$2 && shift 2 && "$@" '"$warnings"' "$source" -o "$0/$program" \
        $(pkg-config --cflags --libs nunc-stans) -pthread >"$0/$program.log" 2>&1
        echo $? >"$0/$program.status"' "$out" <"$out/programs"
    while read -r program source options; do
        step "$source by $options" sh -c 'cat "$0.log" && exit $(cat "$0.status")' "$out/$program"
    done <"$out/programs"
    for compiler in g++ clang++; do
        step "echo-coroutines of $compiler serves, and ends on SIGTERM" $tests/echo.sh "$out/echo-$compiler"
    done
    # The library is built without the sanitizer, and tells it what it hands over. What it does with its own
    # memory and locks the sanitizer would misread.
    echo 'called_from_lib:libnunc-stans.so' >"$out/suppressions"
    TSAN_OPTIONS="suppressions=$out/suppressions" c-tests/run.sh -w "setarch -R" "$out"/*-asan \
        "$out"/*-asan-g++ "$out"/*-tsan >"$log" 2>&1
    add_up
}

# The header without preprocessor, read by those whom it is for.
ffi() {
    "$work/venv/bin/python" - "$root" >"$work/ffi.py.log" 2>&1 <<'PY'
import sys, cffi
ffi = cffi.FFI()
ffi.cdef(open(sys.argv[1] + "/include/nunc-stans-ffi.h").read())
ns = ffi.dlopen(sys.argv[1] + "/lib/libnunc-stans.so")
ran = []
config = ffi.new("struct ns_thrpool_config *")
ns.ns_thrpool_config_init(config)
pool = ns.ns_thrpool_new(config)
@ffi.callback("ns_job_func_t")
def callback(job):
    ran.append(ns.ns_job_get_type(job))
    ns.ns_job_done(job)
    ns.ns_thrpool_shutdown(pool)
assert ns.ns_add_job(pool, ns.NS_JOB_THREAD, callback, ffi.NULL, ffi.NULL) == ns.NS_SUCCESS
assert ns.ns_thrpool_wait(pool) == ns.NS_SUCCESS
ns.ns_thrpool_destroy(pool)
assert ran == [ns.NS_JOB_THREAD], ran
PY
    step "cffi reads nunc-stans-ffi.h as it is, and a job runs" sh -c "cat '$work/ffi.py.log'; exit $?"
    cat >"$work/ffi.lua" <<'LUA'
local ffi = require("ffi")
ffi.cdef(assert(io.open(arg[1] .. "/include/nunc-stans-ffi.h")):read("*a"))
local ns = ffi.load(arg[1] .. "/lib/libnunc-stans.so")
local config = ffi.new("struct ns_thrpool_config")
ns.ns_thrpool_config_init(config)
local pool = ns.ns_thrpool_new(config)
assert(pool ~= nil and ns.ns_thrpool_is_shutdown(pool) == 0)
local job = ffi.new("struct ns_job_t *[1]")
local none = ffi.cast("ns_job_func_t", nil)
assert(ns.ns_create_job(pool, ns.NS_JOB_THREAD, none, job) == ns.NS_INVALID_REQUEST)
assert(ffi.string(ns.ns_result_name(ns.NS_OVERLOADED)) == "NS_OVERLOADED")
assert(ffi.sizeof("struct ns_thrpool_options") % 8 == 0 and ffi.sizeof("ns_job_type_t") == 8)
ns.ns_thrpool_shutdown(pool)
assert(ns.ns_thrpool_wait(pool) == ns.NS_SUCCESS)
ns.ns_thrpool_destroy(pool)
LUA
    step "LuaJIT reads nunc-stans-ffi.h as it is, and a pool lives and ends" \
        luajit "$work/ffi.lua" "$root"
}

# A virtual environment with what the Python tests need, made once.
venv() {
    [ -f "$work/venv/ready" ] && return
    step "pip install" sh -c "python3 -m venv '$work/venv' &&
        '$work/venv/bin/pip' install -q --disable-pip-version-check \
            -r bindings/python/requirements-test.txt && touch '$work/venv/ready'"
}

python() {
    venv
    bin=$work/venv/bin
    step "the wheel is built, without fetching anything else" sh -c "rm -rf '$work/wheel' '$work/python' &&
        cp -r bindings/python '$work/python' && cd '$work/python' && '$bin/python' -m build --wheel \
        --no-isolation --outdir '$work/wheel' . && '$bin/pip' install -q --no-deps --force-reinstall \
        --disable-pip-version-check '$work'/wheel/*.whl"
    step "mypy --strict" "$bin/mypy" --strict bindings/python/src bindings/python/tests bindings/python/examples
    timeout -k 5 200 "$bin/pytest" -q -p no:cacheprovider bindings/python/tests >"$log" 2>&1
    grep -q ' passed' "$log" || echo "0 passed, 1 failed" >>"$log"
    ok=$(sed -n 's/.*\b\([0-9]\+\) passed.*/\1/p' "$log" | tail -n 1)
    bad=$(sed -n 's/.*\b\([0-9]\+\) \(failed\|error\).*/\1/p' "$log" | tail -n 1)
    tail -n 60 "$log"
    passed=$((passed + ${ok:-0}))
    failed=$((failed + ${bad:-0}))
}

# Run Cargo's tests, with variables before the command, and add what they count.
cargo_test() {
    env CARGO_TARGET_DIR="$work/rust" RUST_BACKTRACE=0 NS_SHARED_LIBRARY="$root/lib/libnunc-stans.so.0" "$@" \
        >"$log" 2>&1 || { grep -q '^test result: FAILED' "$log" || echo "test result: FAILED. 0 passed; 1 failed"; } >>"$log"
    sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p' "$log" >"$log.counts"
    bad=$(awk '{ n += $2 } END { print n + 0 }' "$log.counts")
    [ "$bad" -eq 0 ] || tail -n 60 "$log"
    passed=$((passed + $(awk '{ n += $1 } END { print n + 0 }' "$log.counts")))
    failed=$((failed + bad))
}

rust() {
    manifest=--manifest-path=bindings/rust/Cargo.toml
    in_rust="env CARGO_TARGET_DIR=$work/rust cargo"
    cargo_test timeout -k 5 900 cargo test $manifest --locked --no-fail-fast
    cargo_test CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}" timeout -k 5 900 cargo test --locked --doc
    step "Rust: the format" cargo fmt $manifest --check
    # shellcheck disable=SC2086 # words
    step "Rust: lints" $in_rust clippy -q $manifest --locked --all-targets -- -D warnings
    # shellcheck disable=SC2086 # words
    step "Rust: the pages, whose links work" env RUSTDOCFLAGS=-Dwarnings $in_rust doc -q $manifest --locked --no-deps
    runner=CARGO_TARGET_$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER
    cargo_test NS_SLOW=1 "$runner=valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite \
        --errors-for-leak-kinds=definite" timeout -k 5 900 cargo test $manifest --locked --no-fail-fast \
        --test jobs --test groups --test ends -- --test-threads=1
    for example in echo echo-async; do
        step "Rust: $example serves, and ends on SIGTERM" bindings/cpp/tests/echo.sh "$work/rust/debug/examples/$example"
    done
}

# The compiler is PyPI's. It keeps what it has compiled, its own parts of the C library too.
zig() {
    out=$work/zig
    export ZIG_GLOBAL_CACHE_DIR="$out/cache" ZIG_LOCAL_CACHE_DIR="$out/cache"
    bin=$out/venv/bin
    [ -f "$out/ready" ] || step "pip install ziglang" sh -c "python3 -m venv '$out/venv' && '$bin/pip' install -q \
        --disable-pip-version-check -r bindings/zig/requirements.txt && touch '$out/ready'"
    link="-lc -I$root/include -L$root/lib -lnunc-stans -rpath $root/lib -mcpu=baseline"
    step "Zig: the format" "$bin/python" -m ziglang fmt --check bindings/zig
    # shellcheck disable=SC2086 # words
    step "Zig: the tests are compiled" "$bin/python" -m ziglang test bindings/zig/tests.zig $link --test-no-exec \
        -femit-bin="$out/tests"
    for run in "" "valgrind -q --error-exitcode=9 --leak-check=full"; do
        timeout -k 5 200 $run "$out/tests" >"$log" 2>&1
        status=$?
        ok=$(grep -c 'OK$' "$log")
        passed=$((passed + ok))
        [ "$status" -eq 0 ] && [ "$ok" -gt 0 ] && continue
        failed=$((failed + 1))
        tail -n 60 "$log"
    done
    # shellcheck disable=SC2086 # words
    step "Zig: echo is compiled" "$bin/python" -m ziglang build-exe bindings/zig/echo.zig $link -femit-bin="$out/echo"
    step "Zig: echo serves, and ends on SIGTERM" bindings/cpp/tests/echo.sh "$out/echo"
}

# Inside other libraries, under AddressSanitizer, which also looks for leaks.
adapters() {
    out=$work/adapters
    mkdir -p "$out"
    for test in adapters/tests/*.c; do
        program=$(basename "$test" .c)
        case $program in
        libpq) library="$(pkg-config --cflags --libs libpq)" ;;
        test-hiredis) library="$(pkg-config --libs hiredis)" ;;
        test-curl) library="$(pkg-config --cflags --libs libcurl)" ;;
        test-cares) library="$(pkg-config --cflags --libs libcares)" ;;
        test-dbus) library="$(pkg-config --cflags --libs dbus-1)" ;;
        test-verto) library="$(pkg-config --cflags --libs libverto)" ;;
        esac
        # shellcheck disable=SC2046,SC2086 # words
        step "$program is compiled" cc -std=c11 -Wall -Wextra -Wpedantic -Werror -g -O1 -Iadapters -Ic-tests \
            -fsanitize=address,undefined -fno-sanitize-recover=all "$test" -o "$out/$program" \
            $(pkg-config --cflags --libs nunc-stans) $library -lcmocka -lpthread
    done
    limit=120
    [ "${NS_COUNT:-}" != full ] || limit=3600
    HTTPD=$build/examples/httpd LIBPQ_TEST=$out/libpq VERTO_SOURCE=$out/libverto \
        VERTO_MODULE=$root/lib/nunc-stans/libverto-nunc-stans.so c-tests/run.sh -t $limit "$out/test-hiredis" \
        "$out/test-curl" "$out/test-cares" "$out/test-dbus" adapters/tests/test-*.sh >"$log" 2>&1
    add_up
    # shellcheck disable=SC2046 # words
    step "libverto's module is compiled" cc -std=c11 -g -O1 -fsanitize=address,undefined \
        -fno-sanitize-recover=all -fPIC -shared adapters/libverto-nunc-stans.c -o "$out/module.so" \
        $(pkg-config --cflags --libs nunc-stans libverto)
    (VERTO_MODULE=$out/module.so && . adapters/tests/verto.sh && verto_folder "$out/folder" &&
        c-tests/run.sh "$out/test-verto") >"$log" 2>&1
    add_up
    printf '#include "nunc-stans-hiredis.h"\n#include "nunc-stans-curl.h"\n#include "nunc-stans-libpq.h"\n#include "nunc-stans-cares.h"\n#include "nunc-stans-dbus.h"\nint main() {}\n' \
        >"$out/all.cpp"
    # shellcheck disable=SC2046 # words
    step "the adapters are C++, too" g++ -std=c++17 -Wall -Wextra -Werror -fsyntax-only -Iadapters \
        $(pkg-config --cflags nunc-stans libpq dbus-1) "$out/all.cpp"
}

# One test on both, which ends the interpreter under fire; then again where valgrind sees each byte and what leaks.
lua() {
    out=$work/lua
    mkdir -p "$out/nunc_stans"
    for module in nunc_stans/core tests/fork; do
        # shellcheck disable=SC2046 # words
        step "$module.c is compiled" cc -std=c11 -Wall -Wextra -Wpedantic -Werror -g -O2 -fPIC -shared \
            "bindings/lua/$module.c" -o "$out/${module#tests/}.so" $(pkg-config --cflags --libs nunc-stans lua5.4) -lm
    done
    for lua in luajit lua5.4; do
        LUA_CPATH="$out/?.so;;" timeout -k 5 900 $lua bindings/lua/tests/test.lua bindings/lua >"$log" 2>&1
        add_up
        LUA_CPATH="$out/?.so;;" NS_SLOW=1 step "$lua under valgrind" valgrind -q --error-exitcode=9 \
            --leak-check=full --errors-for-leak-kinds=definite,indirect $lua bindings/lua/tests/test.lua bindings/lua
    done
}

# "go test" itself fails the step; what it counts are tests that ran.
golang() {
    export GOCACHE="$work/go" GOPROXY=off GOFLAGS=-mod=readonly
    step "go vet and gofmt" sh -c "cd bindings/go && go vet ./... && test -z \"\$(gofmt -l .)\""
    for how in "GOGC=5 GODEBUG=cgocheck=2 go test" "go test -race -short"; do
        # shellcheck disable=SC2086 # words
        if (cd bindings/go && env $how -count=1 -timeout 900s -v .) >"$log" 2>&1; then
            passed=$((passed + $(grep -c '^--- PASS' "$log")))
            echo "ok: $(grep -c '^--- PASS' "$log") tests by $how"
        else
            failed=$((failed + 1))
            echo "FAILED: $how" && grep -v '^\(===\|--- PASS\)' "$log" | head -n 100
        fi
    done
}

# Then under AddressSanitizer, which sees what the addon does, and what leaks.
nodejs() {
    out=$work/node
    step "the addon is built with the headers that are here" bindings/node/build.sh "$out/plain"
    CFLAGS=-fsanitize=address step "and with AddressSanitizer" bindings/node/build.sh "$out/asan"
    asan="env LD_PRELOAD=$(cc -print-file-name=libasan.so)"
    for how in plain asan; do
        [ $how = plain ] || export NS_SLOW=1
        # shellcheck disable=SC2086 # words
        NUNC_STANS_ADDON="$out/$how/nunc_stans.node" timeout -k 5 3000 $([ $how = plain ] ||
            echo $asan ASAN_OPTIONS=detect_leaks=0) node bindings/node/tests/test.js >"$log" 2>&1
        status=$?
        passed=$((passed + $(grep -c '^ok' "$log")))
        grep '^\(not \)\?ok' "$log"
        if [ $status -ne 0 ] || ! grep -q '^# fail 0' "$log"; then
            failed=$((failed + 1))
            echo "FAILED: the tests of Node, $how, ended with $status"
            tail -n 100 "$log"
        fi
    done
    unset NS_SLOW
    # shellcheck disable=SC2086 # words
    NUNC_STANS_ADDON="$out/asan/nunc_stans.node" step "nothing leaks" $asan node bindings/node/tests/leaks.js
}

for part in ${*:-cpp venv ffi python rust zig adapters lua golang nodejs}; do
    before=$(date +%s)
    $part
    echo "$part took $(($(date +%s) - before)) s"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
