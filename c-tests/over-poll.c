/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Runs any program over the framework of examples/framework-poll.c: loaded by LD_PRELOAD, it stands in
 * for the functions that make pools, and gives each pool that names no framework this one.
 */
#define _GNU_SOURCE
#define FRAMEWORK_ONLY
#include "../examples/framework-poll.c"

#include <dlfcn.h>
#include <string.h>

typedef struct ns_thrpool_t *(*make_with)(struct ns_thrpool_config *, const struct ns_thrpool_options *);

static struct ns_thrpool_t *make(struct ns_thrpool_config *config, const struct ns_thrpool_options *given)
{
    struct ns_framework table = framework_poll();
    struct ns_thrpool_options options;
    make_with next;
    *(void **)&next = dlsym(RTLD_NEXT, "ns_thrpool_new_with");
    ns_thrpool_options_init(&options, sizeof options);
    if (given != NULL) {
        /* Only options of the full size can be extended. */
        if (given->size != sizeof options || given->framework != NULL || given->custom != NULL) {
            return next(config, given);
        }
        options = *given;
    }
    options.custom = &table;
    return next(config, &options);
}

struct ns_thrpool_t *ns_thrpool_new(struct ns_thrpool_config *config)
{
    return make(config, NULL);
}

struct ns_thrpool_t *ns_thrpool_new_with(struct ns_thrpool_config *config,
                                         const struct ns_thrpool_options *options)
{
    return make(config, options);
}
