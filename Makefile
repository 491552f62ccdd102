# SPDX-License-Identifier: GPL-3.0-or-later
# make help lists what there is.

prefix ?= /usr/local
exec_prefix ?= $(prefix)
libdir ?= $(exec_prefix)/lib
includedir ?= $(prefix)/include
mandir ?= $(prefix)/share/man
DESTDIR ?=
INSTALL ?= install
CARGO ?= cargo

VERSION := 0.2.0
SONAME := libnunc-stans.so.0
SHARED := libnunc-stans.so.$(VERSION)
TARGET := $(or $(CARGO_TARGET_DIR),target)
SOURCES := $(shell find src -type f) Cargo.toml Cargo.lock build.rs

# make ARCH=aarch64 builds for another architecture, in build/aarch64; CARGO_BUILD_TARGET=TRIPLE does so
# for any that Rust knows, in build/TRIPLE. build/ itself is for this machine's own.
TRIPLE_aarch64 := aarch64-unknown-linux-gnu
TRIPLE_armhf := armv7-unknown-linux-gnueabihf
TRIPLE_i686 := i686-unknown-linux-gnu
TRIPLE_riscv64 := riscv64gc-unknown-linux-gnu
TRIPLE_s390x := s390x-unknown-linux-gnu
TRIPLE_musl := x86_64-unknown-linux-musl
CROSS_aarch64 := aarch64-linux-gnu-gcc
CROSS_armhf := arm-linux-gnueabihf-gcc
CROSS_i686 := i686-linux-gnu-gcc
CROSS_riscv64 := riscv64-linux-gnu-gcc
CROSS_s390x := s390x-linux-gnu-gcc
CROSS_musl := musl-gcc
ARCHES := aarch64 armhf i686 riscv64 s390x musl
ARCH ?= $(firstword $(foreach a,$(ARCHES),$(if $(filter $(TRIPLE_$a),$(CARGO_BUILD_TARGET)),$a)))
ifneq ($(ARCH),)
    ifeq ($(TRIPLE_$(ARCH)),)
        $(error ARCH=$(ARCH): it is one of $(ARCHES))
    endif
    TRIPLE := $(TRIPLE_$(ARCH))
    B := build/$(ARCH)
    ifeq ($(origin CC),default)
        CC := $(CROSS_$(ARCH))
    endif
    STRIP ?= $(patsubst %gcc,%strip,$(filter-out musl-gcc,$(CC)))
    export CARGO_TARGET_$(shell echo $(TRIPLE) | tr a-z- A-Z_)_LINKER ?= $(CC)
else ifneq ($(CARGO_BUILD_TARGET),)
    TRIPLE := $(CARGO_BUILD_TARGET)
    B := build/$(TRIPLE)
else
    B := build
endif
STRIP := $(or $(STRIP),strip)
RELEASE := $(TARGET)/$(if $(TRIPLE),$(TRIPLE)/)release

# What Rust's own static target lacks to make a shared library that needs musl only: unwinding.
ifeq ($(ARCH),musl)
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS ?= -C target-feature=-crt-static \
        -L native=$(CURDIR)/$(B)/link
    UNWIND := $(B)/link/libgcc_s.so
endif

# The tests of another architecture link cmocka as tools/cmocka.sh builds it; libraries that only some tests
# and examples use are this machine's, so those are left out. A program for i686 runs here by itself.
ifneq ($(TRIPLE),)
    CMOCKA_LIBRARY := $(B)/cmocka/libcmocka.a
    CMOCKA := -I$(B)/cmocka $(CMOCKA_LIBRARY)
    FOREIGN := 1
    ifeq ($(ARCH),i686)
        LDFLAGS += -Wl,--dynamic-linker=/usr/i686-linux-gnu/lib/ld-linux.so.2 -Wl,-rpath,/usr/i686-linux-gnu/lib
    endif
else
    CMOCKA := -lcmocka
endif

C_FLAGS := -std=c11 -Wall -Wextra -Wpedantic -Werror -g -O2 -Iinclude $(CFLAGS)
# Programs here run against $(B)/lib wherever they are started from.
LINK := -L$(B)/lib -Wl,-rpath,$(CURDIR)/$(B)/lib -lnunc-stans -lpthread $(LDFLAGS)

EXAMPLES := $(patsubst examples/%.c,$(B)/examples/%,$(wildcard examples/*.c)) \
            $(B)/examples/sql-gateway
C_TESTS := $(patsubst c-tests/%.c,$(B)/c-tests/%,$(wildcard c-tests/test-*.c))
C_TEST_HEADERS := $(wildcard c-tests/*.h)
# The programs that use NSPR themselves.
WITH_NSPR := $(B)/examples/nspr-echo \
             $(patsubst %,$(B)/c-tests/test-%,nspr original-shape daemon-patterns)
ifdef FOREIGN
    EXAMPLES := $(filter-out $(WITH_NSPR) $(B)/examples/sql-gateway,$(EXAMPLES))
    C_TESTS := $(filter-out $(WITH_NSPR),$(C_TESTS))
endif

TOOLS_FOR_BUILD := gcc libc6-dev
TOOLS_FOR_DEMO := $(TOOLS_FOR_BUILD) curl wrk
TOOLS_FOR_SQL := $(TOOLS_FOR_BUILD) curl libpq-dev pkg-config postgresql procps
TOOLS_FOR_MAN := python3
TOOLS_FOR_DEB := $(TOOLS_FOR_BUILD) $(TOOLS_FOR_MAN) debhelper dpkg-dev fakeroot
TOOLS_FOR_CHECK := $(TOOLS_FOR_DEB) $(TOOLS_FOR_SQL) bindgen bpftrace clang g++ gdb iproute2 libcmocka-dev \
                   libnspr4-dev man-db mandoc netcat-openbsd socat strace systemd valgrind

TOOLS_FOR_DEEP := $(TOOLS_FOR_CHECK) python3
TOOLS_FOR_COUNTS := $(TOOLS_FOR_BUILD) python3 valgrind strace
TOOLS_FOR_BENCH := $(TOOLS_FOR_BUILD) g++ pkg-config python3 libevent-dev libuv1-dev \
                   libglib2.0-dev libasio-dev
BENCHES := $(addprefix $(B)/bench/,ns floor libevent libuv glib asio)
BENCH_HEADERS := $(wildcard bench/*.h)

.PHONY: all help man need-man need-demo need-demo-sql need-check need-deep need-deb need-bench need-counts demo \
        demo-sql check check-model check-deep check-full soak header examples c-tests bench bench-plot \
        bench-counts bench-profile install uninstall deb clean

all: $(B)/lib/$(SHARED) $(B)/lib/libnunc-stans.a ## build the library into build/lib (release)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(B)/link/libgcc_s.so:
	@mkdir -p $(@D)
	echo "INPUT($$(rustc --print target-libdir --target $(TRIPLE))/self-contained/libunwind.a)" >$@

$(RELEASE)/libnunc_stans.so: $(SOURCES) | $(UNWIND)
	# Not as an rlib too: then neither of the two would be optimised as a whole.
	$(CARGO) rustc --release --locked --lib --crate-type cdylib,staticlib $(if $(TRIPLE),--target $(TRIPLE))
	@touch $@ $(RELEASE)/libnunc_stans.a

$(RELEASE)/libnunc_stans.a: $(RELEASE)/libnunc_stans.so

$(B)/lib/$(SHARED): $(RELEASE)/libnunc_stans.so
	@mkdir -p $(@D)
	cp $< $@.new && mv -f $@.new $@
	ln -sf $(SHARED) $(B)/lib/$(SONAME)
	ln -sf $(SONAME) $(B)/lib/libnunc-stans.so

# Without the standard library's debug information, which is most of it.
$(B)/lib/libnunc-stans.a: $(RELEASE)/libnunc_stans.a
	@mkdir -p $(@D)
	cp $< $@
	$(STRIP) --strip-debug $@

need-demo:
	@tools/need.sh $(TOOLS_FOR_DEMO)

need-man:
	@tools/need.sh $(TOOLS_FOR_MAN)

need-demo-sql:
	@tools/need.sh $(TOOLS_FOR_SQL)

need-deb:
	@tools/need.sh $(TOOLS_FOR_DEB)

need-bench:
	@tools/need.sh $(TOOLS_FOR_BENCH)

need-counts:
	@tools/need.sh $(TOOLS_FOR_COUNTS)

need-check:
	@tools/need.sh $(TOOLS_FOR_CHECK)
	@command -v rustup >/dev/null && rustup component list --installed | grep -q clippy || rustup component add clippy
	@command -v rustup >/dev/null && rustup component list --installed | grep -q rustfmt || rustup component add rustfmt

# The dynamic linker knows the names of their callbacks.
build/c-tests/test-dump build/c-tests/test-watchdog: C_FLAGS += -rdynamic

$(WITH_NSPR): NSPR = $(shell pkg-config --cflags --libs nspr)

$(B)/examples/httpd: examples/http.h examples/server.h

$(B)/examples/chat: examples/server.h

SQL_GATEWAY := $(wildcard examples/sql-gateway/*.c)

$(B)/examples/sql-gateway: $(SQL_GATEWAY) examples/sql-gateway/gateway.h examples/http.h \
                            examples/server.h include/nunc-stans.h $(B)/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(SQL_GATEWAY) -o $@ $$(pkg-config --cflags --libs libpq) $(LINK)

$(B)/examples/%: examples/%.c include/nunc-stans.h $(B)/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK) $(NSPR)

# Linked with neither the library nor NSPR: it loads them.
$(B)/c-tests/test-dlopen: c-tests/test-dlopen.c $(C_TEST_HEADERS) include/nunc-stans.h $(B)/lib/$(SHARED) \
                         $(CMOCKA_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -Ic-tests $< -o $@ -ldl $(CMOCKA) -lpthread $(LDFLAGS)

$(B)/c-tests/%: c-tests/%.c $(C_TEST_HEADERS) include/nunc-stans.h $(B)/lib/$(SHARED) $(CMOCKA_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -Ic-tests $< -o $@ $(LINK) $(CMOCKA) $(NSPR)

$(B)/cmocka/libcmocka.a: tools/cmocka.sh
	tools/cmocka.sh $(@D) $(CC)

examples: $(EXAMPLES) ## build the examples into build/examples

c-tests: $(C_TESTS) $(if $(FOREIGN),,$(B)/c-tests/sql-clients) ## build the C tests into build/c-tests

demo: need-demo ## build, serve files over HTTP, load the server, stop it cleanly
	@$(MAKE) --no-print-directory all $(B)/examples/httpd
	@examples/demo.sh $(B)/examples/httpd $(SECONDS)

demo-sql: need-demo-sql ## build, run queries of HTTP clients on a PostgreSQL of its own, kill that, restart it
	@$(MAKE) --no-print-directory all $(B)/examples/sql-gateway $(B)/c-tests/sql-clients
	@examples/sql-gateway/demo.sh build

SECONDS ?= 10

check: need-check ## run every test, on the release build
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 examples c-tests
	@tools/check.sh build

need-deep: need-check
	@tools/need.sh $(TOOLS_FOR_DEEP)

check-deep: need-deep ## models, sanitizers, valgrind, a hundredth of the long counts (NS_SEED)
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 c-tests $(B)/bench/ns
	@tools/deep.sh build

check-full: need-check ## the long counts: half an hour
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 c-tests $(B)/examples/httpd
	NS_COUNT=full c-tests/run.sh -t 36000 $(B)/c-tests/test-fm-* $(B)/c-tests/test-random \
	    $(B)/c-tests/test-faults

soak: need-check ## the example daemon under unfriendly load for SECONDS, memory and descriptors flat
	@$(MAKE) --no-print-directory all $(B)/examples/httpd $(B)/c-tests/soak
	@tools/soak.sh build $(SECONDS)

check-model: ## explore the models of the concurrent protocols with loom
	RUSTFLAGS="--cfg loom -C debug-assertions" CARGO_TARGET_DIR=$(TARGET)/loom $(CARGO) test \
	    --release --locked --lib models -- --nocapture --test-threads=2

$(B)/bench/libevent: LIBRARY = $(shell pkg-config --cflags --libs libevent libevent_pthreads)
$(B)/bench/libuv: LIBRARY = $(shell pkg-config --cflags --libs libuv)
$(B)/bench/glib: LIBRARY = $(shell pkg-config --cflags --libs glib-2.0)
$(B)/bench/ns: LIBRARY = $(LINK)
$(B)/bench/ns: $(B)/lib/$(SHARED)

$(B)/bench/asio: bench/asio.cpp $(BENCH_HEADERS)
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -Wall -Wextra -Wpedantic -Werror -g -O2 -DASIO_STANDALONE $< -o $@ -lpthread

$(B)/bench/%: bench/%.c $(BENCH_HEADERS) include/nunc-stans.h
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LIBRARY) -lpthread

bench: need-bench ## measure beside libevent, libuv, GLib, Asio and code by hand (BENCH_ARGS)
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 $(BENCHES)
	@bench/run.py $(BENCH_ARGS)

bench-plot: ## draw docs/performance.svg from the last bench
	@bench/plot.py

bench-counts: need-counts ## count calls and instructions for each unit of work, compare with bench/counts.csv
	@$(MAKE) --no-print-directory all $(B)/bench/ns
	@bench/counts.py $(COUNTS_ARGS)

bench-profile: need-counts ## where the instructions of the main paths go
	@$(MAKE) --no-print-directory all $(B)/bench/ns
	@bench/profile.py $(B)/bench/ns

header: ## generate include/nunc-stans.h from src/abi and src/capi
	NS_WRITE_HEADER=1 $(CARGO) test --quiet --locked --test header

build/man/done: include/nunc-stans.h docs/MODEL.md $(wildcard tools/docs/*.py) | need-man
	python3 tools/docs/manual.py man $(@D)
	@touch $@

man: build/man/done ## write the manual's pages into build/man

install: all man ## install library, header, manual, pkg-config file; DESTDIR, prefix, libdir, includedir, mandir
	$(INSTALL) -d $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir)/nunc-stans
	$(INSTALL) -m 755 $(B)/lib/$(SHARED) $(DESTDIR)$(libdir)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(libdir)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(libdir)/libnunc-stans.so
	$(INSTALL) -m 644 $(B)/lib/libnunc-stans.a $(DESTDIR)$(libdir)/libnunc-stans.a
	sed 's|@prefix@|$(prefix)|; s|@exec_prefix@|$(exec_prefix)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|; s|@version@|$(VERSION)|' \
	    nunc-stans.pc.in > $(DESTDIR)$(libdir)/pkgconfig/nunc-stans.pc
	$(INSTALL) -m 644 include/nunc-stans.h $(DESTDIR)$(includedir)/nunc-stans/nunc-stans.h
	ln -sf nunc-stans/nunc-stans.h $(DESTDIR)$(includedir)/nunc-stans.h
	$(INSTALL) -d $(DESTDIR)$(mandir)/man3 $(DESTDIR)$(mandir)/man7
	$(INSTALL) -m 644 build/man/man3/* $(DESTDIR)$(mandir)/man3
	$(INSTALL) -m 644 build/man/man7/* $(DESTDIR)$(mandir)/man7

uninstall: man ## remove what install put there
	for page in build/man/man3/* build/man/man7/*; do rm -f $(DESTDIR)$(mandir)/$${page#build/man/}; done
	rm -f $(DESTDIR)$(libdir)/$(SHARED) $(DESTDIR)$(libdir)/$(SONAME) \
	    $(DESTDIR)$(libdir)/libnunc-stans.so $(DESTDIR)$(libdir)/libnunc-stans.a \
	    $(DESTDIR)$(libdir)/pkgconfig/nunc-stans.pc \
	    $(DESTDIR)$(includedir)/nunc-stans.h $(DESTDIR)$(includedir)/nunc-stans/nunc-stans.h
	-rmdir $(DESTDIR)$(includedir)/nunc-stans 2>/dev/null

deb: need-deb ## make Debian packages in build/deb
	@$(MAKE) --no-print-directory all
	@tools/deb.sh

clean: ## remove everything that was built
	rm -rf build
	$(CARGO) clean
