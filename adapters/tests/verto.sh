# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
#
# Sourced by the tests of libverto-nunc-stans.so. libverto looks for its modules in its own folder: so
# verto_folder FOLDER makes one with a copy of the system's libverto and the module that VERTO_MODULE names, and
# programs run with it first in LD_LIBRARY_PATH.
verto_folder() {
    libverto=$(PATH=$PATH:/sbin ldconfig -p | sed -n 's/.*libverto\.so\.1 .* => //p' | head -n 1)
    mkdir -p "$1" && cp -L "$libverto" "$1/libverto.so.1" && cp "$VERTO_MODULE" "$1/libverto-nunc-stans.so.1" ||
        return 1
    LD_LIBRARY_PATH=$1${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
}
