# SPDX-License-Identifier: GPL-3.0-or-later
# make help lists what there is.

prefix ?= /usr/local
exec_prefix ?= $(prefix)
libdir ?= $(exec_prefix)/lib
includedir ?= $(prefix)/include
DESTDIR ?=
INSTALL ?= install
CC ?= cc
CARGO ?= cargo

VERSION := 0.2.0
SONAME := libnunc-stans.so.0
SHARED := libnunc-stans.so.$(VERSION)
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
SOURCES := $(shell find src -type f) Cargo.toml Cargo.lock build.rs

C_FLAGS := -std=c11 -Wall -Wextra -Wpedantic -Werror -g -O2 -Iinclude $(CFLAGS)
# Programs here run against build/lib wherever they are started from.
LINK := -Lbuild/lib -Wl,-rpath,$(CURDIR)/build/lib -lnunc-stans -lpthread $(LDFLAGS)

EXAMPLES := $(patsubst examples/%.c,build/examples/%,$(wildcard examples/*.c)) \
            build/examples/sql-gateway
C_TESTS := $(patsubst c-tests/%.c,build/c-tests/%,$(wildcard c-tests/test-*.c))
C_TEST_HEADERS := $(wildcard c-tests/*.h)
# The programs that use NSPR themselves.
WITH_NSPR := build/examples/nspr-echo \
             $(patsubst %,build/c-tests/test-%,nspr original-shape daemon-patterns)

TOOLS_FOR_BUILD := gcc libc6-dev
TOOLS_FOR_DEMO := $(TOOLS_FOR_BUILD) curl wrk
TOOLS_FOR_SQL := $(TOOLS_FOR_BUILD) curl libpq-dev pkg-config postgresql procps
TOOLS_FOR_DEB := $(TOOLS_FOR_BUILD) debhelper dpkg-dev fakeroot
TOOLS_FOR_CHECK := $(TOOLS_FOR_DEB) $(TOOLS_FOR_SQL) bindgen bpftrace clang g++ gdb libcmocka-dev \
                   libnspr4-dev strace valgrind

TOOLS_FOR_DEEP := $(TOOLS_FOR_CHECK) python3
TOOLS_FOR_COUNTS := $(TOOLS_FOR_BUILD) python3 valgrind strace
TOOLS_FOR_BENCH := $(TOOLS_FOR_BUILD) g++ pkg-config python3 libevent-dev libuv1-dev \
                   libglib2.0-dev libasio-dev
BENCHES := $(addprefix build/bench/,ns floor libevent libuv glib asio)
BENCH_HEADERS := $(wildcard bench/*.h)

.PHONY: all help need-demo need-demo-sql need-check need-deep need-deb need-bench need-counts demo \
        demo-sql check check-model check-deep check-full soak header examples c-tests bench bench-plot \
        bench-counts bench-profile install uninstall deb clean

all: build/lib/$(SHARED) build/lib/libnunc-stans.a ## build the library into build/lib (release)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RELEASE)/libnunc_stans.so: $(SOURCES)
	# Not as an rlib too: then neither of the two would be optimised as a whole.
	$(CARGO) rustc --release --locked --lib --crate-type cdylib,staticlib
	@touch $@ $(RELEASE)/libnunc_stans.a

$(RELEASE)/libnunc_stans.a: $(RELEASE)/libnunc_stans.so

build/lib/$(SHARED): $(RELEASE)/libnunc_stans.so
	@mkdir -p $(@D)
	cp $< $@.new && mv -f $@.new $@
	ln -sf $(SHARED) build/lib/$(SONAME)
	ln -sf $(SONAME) build/lib/libnunc-stans.so

# Without the standard library's debug information, which is most of it.
build/lib/libnunc-stans.a: $(RELEASE)/libnunc_stans.a
	@mkdir -p $(@D)
	cp $< $@
	strip --strip-debug $@

need-demo:
	@tools/need.sh $(TOOLS_FOR_DEMO)

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

$(WITH_NSPR): NSPR = $(shell pkg-config --cflags --libs nspr)

build/examples/httpd: examples/http.h examples/server.h

build/examples/chat: examples/server.h

SQL_GATEWAY := $(wildcard examples/sql-gateway/*.c)

build/examples/sql-gateway: $(SQL_GATEWAY) examples/sql-gateway/gateway.h examples/http.h \
                            examples/server.h include/nunc-stans.h build/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(SQL_GATEWAY) -o $@ $$(pkg-config --cflags --libs libpq) $(LINK)

build/examples/%: examples/%.c include/nunc-stans.h build/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK) $(NSPR)

# Linked with neither the library nor NSPR: it loads them.
build/c-tests/test-dlopen: c-tests/test-dlopen.c $(C_TEST_HEADERS) include/nunc-stans.h build/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -Ic-tests $< -o $@ -ldl -lcmocka -lpthread $(LDFLAGS)

build/c-tests/%: c-tests/%.c $(C_TEST_HEADERS) include/nunc-stans.h build/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -Ic-tests $< -o $@ $(LINK) -lcmocka $(NSPR)

examples: $(EXAMPLES) ## build the examples into build/examples

c-tests: $(C_TESTS) build/c-tests/sql-clients ## build the C tests into build/c-tests

demo: need-demo ## build, serve files over HTTP, load the server, stop it cleanly
	@$(MAKE) --no-print-directory all build/examples/httpd
	@examples/demo.sh build/examples/httpd $(SECONDS)

demo-sql: need-demo-sql ## build, run queries of HTTP clients on a PostgreSQL of its own, kill that, restart it
	@$(MAKE) --no-print-directory all build/examples/sql-gateway build/c-tests/sql-clients
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
	@$(MAKE) --no-print-directory -j2 c-tests build/bench/ns
	@tools/deep.sh build

check-full: need-check ## the long counts: half an hour
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 c-tests build/examples/httpd
	NS_COUNT=full c-tests/run.sh -t 36000 build/c-tests/test-fm-* build/c-tests/test-random \
	    build/c-tests/test-faults

soak: need-check ## the example daemon under unfriendly load for SECONDS, memory and descriptors flat
	@$(MAKE) --no-print-directory all build/examples/httpd build/c-tests/soak
	@tools/soak.sh build $(SECONDS)

check-model: ## explore the models of the concurrent protocols with loom
	RUSTFLAGS="--cfg loom -C debug-assertions" CARGO_TARGET_DIR=$(TARGET)/loom $(CARGO) test \
	    --release --locked --lib models -- --nocapture --test-threads=2

build/bench/libevent: LIBRARY = $(shell pkg-config --cflags --libs libevent libevent_pthreads)
build/bench/libuv: LIBRARY = $(shell pkg-config --cflags --libs libuv)
build/bench/glib: LIBRARY = $(shell pkg-config --cflags --libs glib-2.0)
build/bench/ns: LIBRARY = $(LINK)
build/bench/ns: build/lib/$(SHARED)

build/bench/asio: bench/asio.cpp $(BENCH_HEADERS)
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -Wall -Wextra -Wpedantic -Werror -g -O2 -DASIO_STANDALONE $< -o $@ -lpthread

build/bench/%: bench/%.c $(BENCH_HEADERS) include/nunc-stans.h
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LIBRARY) -lpthread

bench: need-bench ## measure beside libevent, libuv, GLib, Asio and code by hand (BENCH_ARGS)
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 $(BENCHES)
	@bench/run.py $(BENCH_ARGS)

bench-plot: ## draw docs/performance.svg from the last bench
	@bench/plot.py

bench-counts: need-counts ## count calls and instructions for each unit of work, compare with bench/counts.csv
	@$(MAKE) --no-print-directory all build/bench/ns
	@bench/counts.py $(COUNTS_ARGS)

bench-profile: need-counts ## where the instructions of the main paths go
	@$(MAKE) --no-print-directory all build/bench/ns
	@bench/profile.py build/bench/ns

header: ## generate include/nunc-stans.h from src/abi and src/capi
	NS_WRITE_HEADER=1 $(CARGO) test --quiet --locked --test header

install: all ## install library, header and pkg-config file; DESTDIR, prefix, libdir, includedir
	$(INSTALL) -d $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir)/nunc-stans
	$(INSTALL) -m 755 build/lib/$(SHARED) $(DESTDIR)$(libdir)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(libdir)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(libdir)/libnunc-stans.so
	$(INSTALL) -m 644 build/lib/libnunc-stans.a $(DESTDIR)$(libdir)/libnunc-stans.a
	sed 's|@prefix@|$(prefix)|; s|@exec_prefix@|$(exec_prefix)|; s|@libdir@|$(libdir)|; s|@includedir@|$(includedir)|; s|@version@|$(VERSION)|' \
	    nunc-stans.pc.in > $(DESTDIR)$(libdir)/pkgconfig/nunc-stans.pc
	$(INSTALL) -m 644 include/nunc-stans.h $(DESTDIR)$(includedir)/nunc-stans/nunc-stans.h
	ln -sf nunc-stans/nunc-stans.h $(DESTDIR)$(includedir)/nunc-stans.h

uninstall: ## remove what install put there
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
