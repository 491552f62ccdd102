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

.PHONY: all help demo check header examples c-tests install uninstall clean

all: build/lib/$(SHARED) build/lib/libnunc-stans.a ## build the library into build/lib (release)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(RELEASE)/libnunc_stans.so: $(SOURCES)
	$(CARGO) build --release --locked
	@touch $@ $(RELEASE)/libnunc_stans.a

$(RELEASE)/libnunc_stans.a: $(RELEASE)/libnunc_stans.so

build/lib/$(SHARED): $(RELEASE)/libnunc_stans.so
	@mkdir -p $(@D)
	cp $< $@
	ln -sf $(SHARED) build/lib/$(SONAME)
	ln -sf $(SONAME) build/lib/libnunc-stans.so

build/lib/libnunc-stans.a: $(RELEASE)/libnunc_stans.a
	@mkdir -p $(@D)
	cp $< $@

header: ## generate include/nunc-stans.h from src/capi
	NS_WRITE_HEADER=1 $(CARGO) test --quiet --locked --test header

clean: ## remove everything that was built
	rm -rf build
	$(CARGO) clean
