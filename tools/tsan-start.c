/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Linked to programs that run under ThreadSanitizer. To decide whether to suppress a report, the
 * sanitizer starts a symbolizer process and keeps two descriptors to it. Some tests count
 * descriptors, so this starts the symbolizer before the tests begin. */
#include <stddef.h>

void __sanitizer_symbolize_pc(void *pc, const char *format, char *out, size_t size);

__attribute__((constructor)) static void start_symbolizer(void)
{
    char name[256];

    __sanitizer_symbolize_pc((void *)start_symbolizer, "%f", name, sizeof name);
}
