/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Linked to what runs under ThreadSanitizer. To see whether a report is to be suppressed, the
 * sanitizer starts a process that names functions, and keeps two descriptors to it. Tests count
 * descriptors: so it is started before they begin. */
#include <stddef.h>

void __sanitizer_symbolize_pc(void *pc, const char *format, char *out, size_t size);

__attribute__((constructor)) static void start_symbolizer(void)
{
    char name[256];

    __sanitizer_symbolize_pc((void *)start_symbolizer, "%f", name, sizeof name);
}
