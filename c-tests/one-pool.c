/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Makes a pool, and prints its framework or the log. */
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include <nunc-stans.h>

static void print_log(int priority, const char *format, va_list args)
{
    if (priority <= LOG_ERR) {
        vprintf(format, args);
    }
}

int main(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = print_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL) {
        return 1;
    }
    printf("%s\n", ns_thrpool_get_framework(tp));
    ns_thrpool_destroy(tp);
    return 0;
}
