#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Build the addon with the headers that are installed with Node: build.sh DIRECTORY
set -e
cd "$(dirname "$0")"
headers=$(node -p 'require("path").resolve(process.execPath, "../../include/node")')
mkdir -p "$1"
# shellcheck disable=SC2046,SC2086 # words
${CC:-cc} -std=gnu11 -O2 -g -Wall -Wextra -Werror -fPIC -shared ${CFLAGS:-} -isystem "$headers" addon.c -o "$1/nunc_stans.node" \
    $(pkg-config --cflags --libs nunc-stans) -lm
