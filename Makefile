# SPDX-License-Identifier: GPL-3.0-or-later
# make help lists what there is.

prefix ?= /usr/local
exec_prefix ?= $(prefix)
libdir ?= $(exec_prefix)/lib
includedir ?= $(prefix)/include
bindir ?= $(exec_prefix)/bin
mandir ?= $(prefix)/share/man
docdir ?= $(prefix)/share/doc/nunc-stans
DESTDIR ?=
INSTALL ?= install
CARGO ?= cargo

VERSION := 0.2.0
SONAME := libnunc-stans.so.0
SHARED := libnunc-stans.so.$(VERSION)
# There uint_fast16_t is another type than with glibc.
FFI_FOR_MUSL := s/^typedef unsigned long ns_job_type_t/typedef unsigned int ns_job_type_t/
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
    BINUTILS := $(patsubst %gcc,%,$(filter-out musl-gcc,$(CROSS_$(ARCH))))
    export CARGO_TARGET_$(shell echo $(TRIPLE) | tr a-z- A-Z_)_LINKER ?= $(CC)
else ifneq ($(CARGO_BUILD_TARGET),)
    TRIPLE := $(CARGO_BUILD_TARGET)
    B := build/$(TRIPLE)
else
    B := build
endif
RELEASE := $(TARGET)/$(if $(TRIPLE),$(TRIPLE)/)release

# What Rust's own static target lacks to make a shared library that needs musl only: unwinding.
ifeq ($(ARCH),musl)
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS ?= -C target-feature=-crt-static \
        -L native=$(CURDIR)/$(B)/link
    UNWIND := $(B)/link/libgcc_s.so
    # Some tests use the headers of the kernel, whose numbers of ioctls are no int, as musl has it.
    CFLAGS += -idirafter $(B)/link/include -Wno-overflow
endif

# The tests of another architecture link cmocka as tools/cmocka.sh builds it; libraries that only some tests
# and examples use are this machine's, so those are left out. A program for i686 runs here by itself.
ifneq ($(TRIPLE),)
    CMOCKA_LIBRARY := $(B)/cmocka/libcmocka.a
    CMOCKA := -I$(B)/cmocka $(CMOCKA_LIBRARY)
    FOREIGN := 1
    ifeq ($(ARCH),riscv64)
        LDFLAGS += -latomic
    endif
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
# The examples in the event loop of a host.
IN_HOSTS := $(patsubst examples/%.c,$(B)/examples/%,$(wildcard examples/in-*.c))
ifdef FOREIGN
    EXAMPLES := $(filter-out $(WITH_NSPR) $(IN_HOSTS) $(B)/examples/sql-gateway,$(EXAMPLES))
    C_TESTS := $(filter-out $(WITH_NSPR),$(C_TESTS))
    ifeq ($(ARCH),musl) # it takes the place of glibc's malloc, and calls that
        C_TESTS := $(filter-out %/test-forks,$(C_TESTS))
    endif
endif

TOOLS_FOR_BUILD := gcc libc6-dev
TOOLS_FOR_DEMO := $(TOOLS_FOR_BUILD) curl wrk
TOOLS_FOR_SQL := $(TOOLS_FOR_BUILD) curl libpq-dev pkg-config postgresql procps
TOOLS_FOR_MAN := python3
# What the sessions in the guide and the recipes use.
TOOLS_FOR_LISTINGS := pkg-config netcat-openbsd socat systemd iproute2 dnsmasq-base openssl \
                      libc-ares-dev libssl-dev libevent-core-2.1-7 libtevent0
TOOLS_FOR_DEB := $(TOOLS_FOR_BUILD) $(TOOLS_FOR_MAN) debhelper dpkg-dev fakeroot
TOOLS_FOR_PACKAGE := $(TOOLS_FOR_DEB) abigail-tools debootstrap git lintian util-linux xz-utils
TOOLS_FOR_CHECK := $(TOOLS_FOR_DEB) $(TOOLS_FOR_SQL) bindgen bpftrace clang g++ gdb libcmocka-dev \
                   libevent-dev libglib2.0-dev libnspr4-dev libtevent-dev libuv1-dev man-db mandoc prometheus \
                   strace valgrind \
                   $(TOOLS_FOR_LISTINGS)

# For the architectures in ARCHES, and for some of them.
TOOLS_FOR_aarch64 := gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
TOOLS_FOR_armhf := gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user
TOOLS_FOR_i686 := gcc-i686-linux-gnu libc6-dev-i386-cross
TOOLS_FOR_riscv64 := gcc-riscv64-linux-gnu libc6-dev-riscv64-cross qemu-user
TOOLS_FOR_s390x := gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user
TOOLS_FOR_musl := musl-dev musl-tools
EVERYWHERE ?= oldest systems crate $(ARCHES)
TOOLS_FOR_DOCS := $(TOOLS_FOR_MAN) python3-venv graphviz

TOOLS_FOR_DEEP := $(TOOLS_FOR_CHECK) python3
TOOLS_FOR_LANGUAGES := $(TOOLS_FOR_BUILD) g++ clang-16 luajit pkg-config python3-dev python3-venv \
                       libcmocka-dev redis-server libhiredis-dev libcurl4-openssl-dev libpq-dev \
                       postgresql procps libverto-dev krb5-kdc krb5-admin-server krb5-user valgrind \
                       libc-ares-dev dnsmasq-base libdbus-1-dev dbus-daemon liblua5.4-dev lua5.4 lua-socket \
                       golang-go nodejs $(if $(wildcard /usr/include/node/node_api.h),,libnode-dev)
TOOLS_FOR_COUNTS := $(TOOLS_FOR_BUILD) python3 valgrind strace
TOOLS_FOR_BENCH := $(TOOLS_FOR_BUILD) g++ pkg-config python3 libevent-dev libuv1-dev \
                   libglib2.0-dev libasio-dev libtevent-dev libtalloc-dev
BENCHES := $(addprefix $(B)/bench/,ns floor libevent libuv glib asio)
BENCH_HEADERS := $(wildcard bench/*.h)

.PHONY: all help man docs pictures times-picture need-rustup need-man need-docs need-demo need-demo-sql \
        need-check need-deep need-deb \
        need-languages need-bench need-counts demo demo-sql check check-model check-deep check-full \
        check-everywhere check-languages verto-module check-docs check-package dist print-triple time64-tests soak header \
        examples c-tests bench bench-frameworks bench-plot bench-counts bench-profile install uninstall deb clean

all: $(B)/lib/$(SHARED) $(B)/lib/libnunc-stans.a $(B)/ns-top/ns-top ## build the library into build/lib (release), and ns-top

$(B)/ns-top/ns-top: $(wildcard ns-top/*.c ns-top/*.h)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(filter %.c,$^) -o $@ $(LDFLAGS)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(B)/link/libgcc_s.so:
	@mkdir -p $(@D)/include
	ln -sfn /usr/include/linux /usr/include/asm-generic /usr/include/$$(cc -print-multiarch)/asm $(@D)/include/
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

# One object, in which only the interface's functions are global: a program may link another static library
# in Rust, which has a copy of Rust's own functions. Without debug information, which is Rust's mostly.
$(B)/lib/libnunc-stans.a: $(RELEASE)/libnunc_stans.a c-tests/symbols.txt
	@mkdir -p $(@D)
	$(BINUTILS)ld -r --force-group-allocation $(shell sed 's/^/-u /' c-tests/symbols.txt) $< -o $@.o
	$(BINUTILS)objcopy --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd \
	    --keep-global-symbols=c-tests/symbols.txt $@.o
	rm -f $@
	$(BINUTILS)ar rcsD $@ $@.o
	rm -f $@.o

need-demo:
	@tools/need.sh $(TOOLS_FOR_DEMO)

need-man:
	@tools/need.sh $(TOOLS_FOR_MAN)

need-docs:
	@tools/need.sh $(TOOLS_FOR_DOCS)

need-demo-sql:
	@tools/need.sh $(TOOLS_FOR_SQL)

need-deb:
	@tools/need.sh $(TOOLS_FOR_DEB)

need-bench:
	@tools/need.sh $(TOOLS_FOR_BENCH)

need-counts:
	@tools/need.sh $(TOOLS_FOR_COUNTS)

need-rustup:
	@command -v rustup >/dev/null && rustup component list --installed | grep -q clippy || rustup component add clippy
	@command -v rustup >/dev/null && rustup component list --installed | grep -q rustfmt || rustup component add rustfmt

need-check: need-rustup
	@tools/need.sh $(TOOLS_FOR_CHECK)

$(WITH_NSPR): LIBRARY = $(shell pkg-config --cflags --libs nspr)
$(B)/examples/in-glib: LIBRARY = $(shell pkg-config --cflags --libs glib-2.0)
$(B)/examples/in-libuv: LIBRARY = $(shell pkg-config --cflags --libs libuv)
$(B)/examples/in-libevent: LIBRARY = $(shell pkg-config --cflags --libs libevent_core)

# The dynamic linker knows the names of their callbacks.
$(B)/c-tests/test-dump $(B)/c-tests/test-watchdog: C_FLAGS += -rdynamic

$(B)/examples/httpd: examples/http.h examples/server.h

$(B)/examples/chat: examples/server.h

$(IN_HOSTS): examples/in-host.h

SQL_GATEWAY := $(wildcard examples/sql-gateway/*.c)

$(B)/examples/sql-gateway: $(SQL_GATEWAY) examples/sql-gateway/gateway.h examples/http.h \
                            examples/server.h include/nunc-stans.h $(B)/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $(SQL_GATEWAY) -o $@ $$(pkg-config --cflags --libs libpq) $(LINK)

$(B)/examples/%: examples/%.c include/nunc-stans.h $(B)/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) $< -o $@ $(LINK) $(LIBRARY)

# Linked with neither the library nor NSPR: it loads them.
$(B)/c-tests/test-dlopen: c-tests/test-dlopen.c $(C_TEST_HEADERS) include/nunc-stans.h $(B)/lib/$(SHARED) \
                         $(CMOCKA_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -Ic-tests $< -o $@ -ldl $(CMOCKA) -lpthread $(LDFLAGS)

# It exports functions that libevent has too.
$(B)/c-tests/test-frameworks: LIBRARY = -rdynamic -ldl

$(B)/c-tests/test-frameworks-refusals: LIBRARY = -ldl

$(B)/c-tests/test-frameworks: examples/framework-poll.c

# To run any program over the framework of an example: LD_PRELOAD.
$(B)/c-tests/over-poll.so: c-tests/over-poll.c examples/framework-poll.c include/nunc-stans.h
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -fPIC -shared $< -o $@ -ldl $(LDFLAGS)

$(B)/c-tests/%: c-tests/%.c $(C_TEST_HEADERS) include/nunc-stans.h $(B)/lib/$(SHARED) $(CMOCKA_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -O1 -Ic-tests $< -o $@ $(LINK) $(CMOCKA) $(LIBRARY)

# For 32 bits: tests with a time_t of 64.
$(B)/time64/%: c-tests/%.c $(C_TEST_HEADERS) include/nunc-stans.h $(B)/lib/$(SHARED) $(CMOCKA_LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -D_TIME_BITS=64 -D_FILE_OFFSET_BITS=64 -O1 -Ic-tests $< -o $@ $(LINK) $(CMOCKA)

TIME64 := $(patsubst %,$(B)/time64/test-%,abi cadence groups-wait io-timeouts options rearm-after rearm-for small-things)

time64-tests: $(TIME64)

$(B)/cmocka/libcmocka.a: tools/cmocka.sh
	tools/cmocka.sh $(@D) $(CC)

examples: $(EXAMPLES) ## build the examples into build/examples

c-tests: $(C_TESTS) $(if $(FOREIGN),,$(B)/c-tests/sql-clients) $(B)/c-tests/over-poll.so $(B)/c-tests/one-pool ## build the C tests into build/c-tests

# Not of `all`: it needs libverto's header. make install installs it if it is there.
verto-module: $(B)/adapters/libverto-nunc-stans.so ## build the module of libverto into build/adapters

$(B)/adapters/libverto-nunc-stans.so: adapters/libverto-nunc-stans.c include/nunc-stans.h $(B)/lib/$(SHARED)
	@mkdir -p $(@D)
	$(CC) $(C_FLAGS) -fPIC -shared $< -o $@ -L$(B)/lib -lnunc-stans $$(pkg-config --cflags --libs libverto) $(LDFLAGS)

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

need-languages: need-rustup
	@tools/need.sh $(TOOLS_FOR_LANGUAGES)

check-languages: need-languages ## C++, Python, Rust, Zig, Lua, Go, Node.js, the header without preprocessor, the adapters
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory build/examples/httpd verto-module
	@tools/languages.sh build

check-full: need-check ## the documents, and the long counts: half an hour
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 c-tests $(B)/examples/httpd
	@$(MAKE) --no-print-directory check-docs
	NS_COUNT=full c-tests/run.sh -t 36000 $(B)/c-tests/test-fm-* $(B)/c-tests/test-random \
	    $(B)/c-tests/test-faults c-tests/test-ns-top.sh
	NS_LIMIT=600 c-tests/frameworks.sh $(B) all
	tools/deep.sh $(B) memcheck_frameworks

check-everywhere: ## build and test for other architectures and systems (EVERYWHERE="oldest aarch64")
	@tools/need.sh dpkg-dev xz-utils $(TOOLS_FOR_BUILD) $(sort $(foreach a,$(EVERYWHERE),$(TOOLS_FOR_$a)))
	@tools/everywhere.sh $(EVERYWHERE)

print-triple:
	@echo $(TRIPLE)

soak: need-check ## the example daemon under unfriendly load for SECONDS, memory and descriptors flat
	@$(MAKE) --no-print-directory all $(B)/examples/httpd $(B)/c-tests/soak
	@tools/soak.sh build $(SECONDS)

check-model: ## explore the models of the concurrent protocols with loom
	RUSTFLAGS="--cfg loom -C debug-assertions" CARGO_TARGET_DIR=$(TARGET)/loom $(CARGO) test \
	    --release --locked --lib models -- --nocapture --test-threads=2

$(B)/bench/libevent: LIBRARY = $(shell pkg-config --cflags --libs libevent libevent_pthreads)
$(B)/bench/tevent: LIBRARY = $(shell pkg-config --cflags --libs tevent talloc)
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

bench-frameworks: need-bench ## measure pools over each event framework beside the same framework used bare (ROUNDS)
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -j2 $(addprefix $(B)/bench/,ns floor libevent tevent) $(B)/c-tests/over-poll.so
	@bench/frameworks.py $(ROUNDS)

bench-plot: ## draw docs/performance.svg from the last bench
	@bench/plot.py

bench-counts: need-counts ## count calls and instructions for each unit of work, compare with bench/counts.csv
	@$(MAKE) --no-print-directory all $(B)/bench/ns
	@bench/counts.py $(COUNTS_ARGS)

bench-profile: need-counts ## where the instructions of the main paths go
	@$(MAKE) --no-print-directory all $(B)/bench/ns
	@bench/profile.py $(B)/bench/ns

header: ## generate include/nunc-stans.h and nunc-stans-ffi.h from src/abi and src/capi
	NS_WRITE_HEADER=1 $(CARGO) test --quiet --locked --test header

build/man/done: include/nunc-stans.h docs/MODEL.md docs/GUIDE.md $(wildcard examples/recipes/*.c) $(wildcard tools/docs/*.py) | need-man
	python3 tools/docs/manual.py man $(@D)
	@touch $@

man: build/man/done ## write the manual's pages into build/man

build/docs/venv/done: tools/docs/requirements.txt
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --requirement $<
	@touch $@

docs: need-docs ## build the site into build/docs/site and check its links
	@$(MAKE) --no-print-directory build/docs/venv/done
	@build/docs/venv/bin/python tools/docs/site.py build/docs

times-picture: ## run the example daemon under load for five seconds, and draw docs/pictures/times.svg
	@tools/need.sh python3
	@$(MAKE) --no-print-directory all $(B)/examples/httpd
	tools/times.py run $(B)/examples/httpd >$(B)/times.svg && mv $(B)/times.svg docs/pictures/times.svg

pictures: need-docs ## draw docs/pictures/*.svg
	for picture in docs/pictures/*.dot; do dot -Tsvg $$picture -o $${picture%.dot}.svg; done

check-docs: need-check ## manual, guide, recipes, site, and chapter one in a clean chroot
	@tools/need.sh mmdebstrap
	@$(MAKE) --no-print-directory docs deb
	@tools/docs/check.sh

install uninstall: export NS_BUILD = $(B)
install uninstall: export NS_VERSION = $(VERSION)
install uninstall: export NS_SONAME = $(SONAME)
install uninstall: export NS_DOCS ?= yes
install uninstall: export NS_FFI_EDIT = $(if $(filter musl,$(ARCH)),$(FFI_FOR_MUSL))
$(foreach d,DESTDIR prefix exec_prefix bindir libdir includedir mandir docdir,$(eval install uninstall: export $d = $(value $d)))

install: all man ## install library, headers, manual, pkg-config file; DESTDIR, prefix, libdir, includedir, mandir
	@tools/install.sh install

uninstall: man ## remove what install put there
	@tools/install.sh uninstall

deb: need-deb ## make Debian packages in build/deb
	@$(MAKE) --no-print-directory all
	@tools/deb.sh

dist: ## make the release's tarball in build/dist, which builds without a network
	@tools/dist.sh $(VERSION)

check-package: ## packages as a distribution makes them: fresh system, no network, lintian, abidiff, twice the same
	@tools/need.sh $(TOOLS_FOR_PACKAGE)
	@tools/package.sh $(VERSION)

clean: ## remove everything that was built
	rm -rf build
	$(CARGO) clean
