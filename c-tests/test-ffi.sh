#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# nunc-stans-ffi.h, which has no preprocessor, declares what nunc-stans.h does: compilers compare every
# constant, struct, field and function of the two. Run in the project's root.
. c-tests/tap.sh
ffi=include/nunc-stans-ffi.h

# For cross compilers too, where they are installed.
compilers=$(for each in cc clang aarch64-linux-gnu-gcc arm-linux-gnueabihf-gcc i686-linux-gnu-gcc \
    riscv64-linux-gnu-gcc s390x-linux-gnu-gcc; do
    ! command -v "$each" || :
done | xargs -n 1 basename)

# Tags, typedefs, fields and constants by other names, so that both headers fit into one file. Functions
# keep theirs: a second declaration that differs is an error.
sed '/^\/\*/,/\*\/$/d' "$ffi" >"$work/plain.h"
function='^[a-z].*[ *]ns_[a-z_]*(.*);$'
grep "$function" "$work/plain.h" | grep -v '^typedef' >"$work/functions.h"
grep -vxFf "$work/functions.h" "$work/plain.h" |
    sed -E 's/\b(_?ns_[a-z_]+|timeval)\b/ffi_\1/g; s/\bNS_[A-Z_]+\b/FFI_&/g' >"$work/others.h"

{
    printf '#define NS_EXTENDED_RESULTS\n#include <nunc-stans.h>\n#include <sys/types.h>\n'
    echo '#include "others.h"'
    grep -oE '\bNS_[A-Z_]+ = ' "$work/plain.h" | while read -r name _; do
        echo "_Static_assert((long)$name == (long)FFI_$name, \"$name\");"
    done
    # Every struct with fields, and every field.
    awk '/^struct [a-z_]+ \{/ { tag = $2; line = $0; sub(/^[^{]*\{/, "", line); $0 = line; inside = 1
             printf "_Static_assert(sizeof(struct %s) == sizeof(struct ffi_%s), \"%s\");\n", tag, tag, tag }
         inside { all = $0; end = sub(/\}.*/, "", all); n = split(all, fields, ";")
             for (i = 1; i <= n; i++) { field = fields[i]
                 if (match(field, /\(\*[a-z_]+\)/)) field = substr(field, RSTART + 2, RLENGTH - 3)
                 else { sub(/\[.*/, "", field); sub(/ *$/, "", field); sub(/^.*[ *]/, "", field) }
                 if (field == "") continue
                 a = "((struct " tag " *)0)->" field; b = "((struct ffi_" tag " *)0)->" field
                 printf "_Static_assert(offsetof(struct %s, %s) == offsetof(struct ffi_%s, %s) && sizeof(%s) == sizeof(%s), \"%s.%s\");\n", tag, field, tag, field, a, b, tag, field }
             if (end) inside = 0 }' "$work/plain.h"
    for type in ns_job_type_t ns_result_t ns_job_func_t; do
        echo "_Static_assert(sizeof($type) == sizeof(ffi_$type), \"$type\");"
    done
    echo "_Static_assert((ffi_ns_job_type_t)-1 > 0 && (ns_job_type_t)-1 > 0, \"flags have no sign\");"
} >"$work/compare.c"
printf '#include <nunc-stans.h>\n#include "functions.h"\n' >"$work/functions.c"

touch "$work/why"
asserts=$(grep -c _Static_assert "$work/compare.c")
[ "$asserts" -ge 60 ]
tap $? "there is something to compare: $asserts assertions"
for compiler in $compilers; do
    $compiler -std=c11 -Wall -Wextra -Werror -fsyntax-only -Iinclude -DNS_NO_NSPR "$work/compare.c" \
        >"$work/why" 2>&1
    tap $? "$compiler: constants, structs, fields and types agree"
    $compiler -std=c11 -Wall -Wextra -Werror -fsyntax-only -Iinclude -DNS_NO_NSPR \
        "$work/functions.c" >"$work/why" 2>&1
    tap $? "$compiler: functions agree"
done

if command -v musl-gcc >/dev/null; then
    sed "$(sed -n 's/^FFI_FOR_MUSL := //p' Makefile | sed 's/ns_job/ffi_ns_job/g')" "$work/others.h" >"$work/glibc.h"
    mv "$work/others.h" "$work/kept.h" && mv "$work/glibc.h" "$work/others.h"
    musl-gcc -std=c11 -Wall -Werror -fsyntax-only -Iinclude -DNS_NO_NSPR "$work/compare.c" >"$work/why" 2>&1
    tap $? "musl-gcc: what make ARCH=musl install writes agrees"
    mv "$work/kept.h" "$work/others.h"
fi

sed -E 's/^.*[ *](ns_[a-z_]+)\(.*$/\1/' "$work/functions.h" | sort | diff - c-tests/symbols.txt >"$work/why"
tap $? "it has every function"
grep -oE '^#define NS_[A-Z_]+ .*[0-9]' include/nunc-stans.h | awk '{ print $2 }' | sort -u |
    while read -r name; do grep -qw "$name = .*" "$ffi" || echo "$name"; done >"$work/why"
[ ! -s "$work/why" ]
tap $? "it has every constant"
! grep -n '^#\|uint_fast16_t\|va_list\|pid_t' "$ffi" >"$work/why"
tap $? "it has no directive, and no type that readers do not know"

# The comparison does compare: one that differs is found.
sed -i 's/^enum { FFI_NS_JOB_READ = 4 };/enum { FFI_NS_JOB_READ = 5 };/' "$work/others.h"
! cc -std=c11 -fsyntax-only -Iinclude -DNS_NO_NSPR "$work/compare.c" >"$work/why" 2>&1
tap $? "a constant that differs is noticed"
sed -i 's/int ns_job_get_native_fd/long ns_job_get_native_fd/' "$work/functions.h"
! cc -std=c11 -fsyntax-only -Iinclude -DNS_NO_NSPR "$work/functions.c" >"$work/why" 2>&1
tap $? "a function that differs is noticed"
echo "1..$count"
