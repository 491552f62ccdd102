#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What programs find the installed library with: pkg-config under an odd prefix, CMake, Meson; and the
# static library beside another one in Rust. Run in the project's root, with the library built.
. c-tests/tap.sh
unset MAKEFLAGS MAKELEVEL DESTDIR
project=$PWD
root=$work/root
prefix="/opt/odd & it's 100%|x"
here="$root$prefix"

make --no-print-directory install "DESTDIR=$root" "prefix=$prefix" >"$work/why" 2>&1 &&
    [ -f "$here/lib/libnunc-stans.a" ] && [ -f "$here/share/doc/nunc-stans/README.md" ] &&
    [ -f "$here/share/doc/nunc-stans/examples/run-now.c" ] &&
    [ -f "$here/share/man/man3/ns_job_done.3" ]
tap $? "it is installed under a prefix with odd characters, with documents, examples and manual"

# Not the file that is moved to the DESTDIR, but what it says.
(
    export PKG_CONFIG_PATH="$here/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
    eval "cc -Wall -Wextra -Werror examples/run-now.c -o '$work/odd' $(pkg-config --cflags --libs nunc-stans)" &&
        LD_LIBRARY_PATH="$here/lib" "$work/odd"
) >"$work/why" 2>&1
tap $? "pkg-config's words survive the shell, and an example builds with them and runs"

# Of all links in the documents, those to tests and tools are text once installed. The others lead somewhere.
doc="$here/share/doc/nunc-stans"
mkdir "$work/tree"
cp -R README.md docs adapters bindings "$work/tree/"
python3 tools/docs/links.py list "$work/tree" |
    grep -v -e ' \(bench\|c-tests\|tools\|adapters/tests\)\(/\|$\)' -e ' CONTRIBUTING.md$' | LC_ALL=C sort >"$work/want"
python3 tools/docs/links.py check "$doc" >"$work/why" 2>&1 &&
    python3 tools/docs/links.py list "$doc" | LC_ALL=C sort | diff "$work/want" - >"$work/why"
tap $? "the links between the installed documents, examples and headers lead to what is there"

plain="$work/plain and & simple"
make --no-print-directory install "prefix=$plain" >"$work/why" 2>&1
tap $? "it is installed under a prefix with spaces"

# make, which CMake calls, takes no % in a name.
mkdir "$work/cmake"
cat >"$work/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.13)
project(program C)
find_package(nunc-stans 0.2 REQUIRED)
add_executable(shared "$project/examples/run-now.c")
target_link_libraries(shared nunc-stans::nunc-stans)
add_executable(static "$project/examples/run-now.c")
target_link_libraries(static nunc-stans::static)
END
cmake -S "$work/cmake" -B "$work/cmake/build" "-DCMAKE_PREFIX_PATH=$plain" >"$work/why" 2>&1 &&
    cmake --build "$work/cmake/build" >>"$work/why" 2>&1
tap $? "CMake finds it, and a program builds with each of its two targets"
"$work/cmake/build/shared" >"$work/why" 2>&1 &&
    readelf -d "$work/cmake/build/shared" | grep -q 'NEEDED.*libnunc-stans\.so\.0'
tap $? "the one with the shared target runs"
readelf -d "$work/cmake/build/static" | grep nunc-stans >"$work/why"
[ ! -s "$work/why" ] && "$work/cmake/build/static" >"$work/why" 2>&1
tap $? "the one with the static target runs without the shared library"
sed -i 's/0\.2 REQUIRED/0.99 REQUIRED/' "$work/cmake/CMakeLists.txt"
! cmake -S "$work/cmake" -B "$work/cmake/later" "-DCMAKE_PREFIX_PATH=$plain" >"$work/why" 2>&1
tap $? "CMake does not take it for a later version"

# Meson gets pkg-config's words, and splits them as a shell does.
mkdir "$work/meson"
cp examples/run-now.c "$work/meson/"
cat >"$work/meson/meson.build" <<'END'
project('program', 'c')
executable('shared', 'run-now.c', dependencies: dependency('nunc-stans', version: '>=0.2'))
executable('static', 'run-now.c', dependencies: dependency('nunc-stans', static: true))
END
PKG_CONFIG_PATH="$plain/lib/pkgconfig" meson setup "$work/meson/build" "$work/meson" >"$work/why" 2>&1 &&
    ninja -C "$work/meson/build" >>"$work/why" 2>&1 && "$work/meson/build/shared" >>"$work/why" 2>&1 &&
    "$work/meson/build/static" >>"$work/why" 2>&1 &&
    ! readelf -d "$work/meson/build/static" | grep -q 'NEEDED.*nunc-stans'
tap $? "Meson finds it as a dependency, shared and static, and the programs run"

# Another static library in Rust, which brings Rust's own functions too.
cat >"$work/other.rs" <<'END'
#[unsafe(no_mangle)]
pub extern "C" fn other_sum(n: u64) -> u64 {
    std::thread::spawn(move || (0..n).collect::<Vec<_>>().iter().sum()).join().unwrap()
}
END
cat >"$work/two.c" <<'END'
#include <nunc-stans.h>
#include <stdint.h>
extern uint64_t other_sum(uint64_t n);
static uint64_t sum;
static void add_up(struct ns_job_t *job) { sum = other_sum(10); ns_job_done(job); }
int main(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    ns_add_job(tp, NS_JOB_THREAD, add_up, NULL, NULL);
    ns_thrpool_shutdown(tp);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    return sum == 45 ? 0 : 1;
}
END
rustc --edition 2024 --crate-type staticlib -O "$work/other.rs" -o "$work/libother.a" >"$work/why" 2>&1 &&
    for libraries in "build/lib/libnunc-stans.a $work/libother.a" "$work/libother.a build/lib/libnunc-stans.a"; do
        # shellcheck disable=SC2086 # words
        cc -Wall -Wextra -Werror "-I$plain/include" "$work/two.c" $libraries -lpthread -ldl -o "$work/two" &&
            "$work/two" || exit 1
    done >"$work/why" 2>&1
tap $? "the static library and another one in Rust are in one program, in either order"
nm -g --defined-only build/lib/libnunc-stans.a | awk 'NF == 3 {print $3}' | LC_ALL=C sort |
    diff c-tests/symbols.txt - >"$work/why"
tap $? "the static library shows the interface's functions and no others"

make --no-print-directory uninstall "prefix=$plain" >"$work/why" 2>&1 &&
    make --no-print-directory uninstall "DESTDIR=$root" "prefix=$prefix" >>"$work/why" 2>&1 &&
    find "$root" "$plain" ! -type d >"$work/why" &&
    find "$root" "$plain" -type d -name '*nunc-stans*' >>"$work/why" && [ ! -s "$work/why" ]
tap $? "uninstall leaves nothing"

echo "1..$count"
