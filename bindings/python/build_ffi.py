# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes nunc_stans._native, cffi's API mode: declarations from the installed nunc-stans-ffi.h, compiled
against the installed nunc-stans.h, so that the compiler checks each."""

import re
import shlex
import subprocess
from pathlib import Path

from cffi import FFI


def pkg_config(*arguments: str) -> list[str]:
    return shlex.split(subprocess.check_output(["pkg-config", *arguments, "nunc-stans"], text=True))


directory = Path(pkg_config("--variable=includedir")[0])
declarations = (directory / "nunc-stans-ffi.h").read_text()
# A va_list can't be handed to Python: C makes a line of it first (below). The rest of the struct is as it is.
declarations = re.sub(
    r"(struct ns_thrpool_config \{.*?)void \(\*log_fct\)[^\n]*\n(.*?)\};", r"\1\2...;\n};", declarations, flags=re.S
)

ffibuilder = FFI()
ffibuilder.cdef(declarations)
ffibuilder.cdef(
    """
    void ns_python_use_log(struct ns_thrpool_config *config);
    extern "Python" void ns_python_run(struct ns_job_t *job);
    extern "Python" void ns_python_gone(struct ns_job_t *job);
    extern "Python" void ns_python_group_gone(struct ns_group_t *group);
    extern "Python" void ns_python_posted(struct ns_job_t *job);
    extern "Python" void ns_python_line(void *arg, int priority, const char *text);
    """
)
ffibuilder.set_source(
    "nunc_stans._native",
    r"""
    #define NS_EXTENDED_RESULTS
    #define NS_NO_NSPR
    #include <nunc-stans.h>
    #include <stdio.h>
    static void ns_python_line(void *, int, const char *);
    static void ns_python_log(int priority, const char *format, va_list arguments)
    {
        char line[2048];
        vsnprintf(line, sizeof line, format, arguments);
        ns_python_line(NULL, priority, line);
    }
    static void ns_python_use_log(struct ns_thrpool_config *config) { config->log_fct = ns_python_log; }
    """,
    extra_compile_args=pkg_config("--cflags"),
    extra_link_args=pkg_config("--libs"),
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
