/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns-top: reading another process. */
#ifndef NS_TOP_H
#define NS_TOP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Read from the memory of a process. 0, or -1 with errno: ESRCH if it has ended, EPERM if we may not. */
int peek(pid_t pid, uint64_t at, void *into, size_t size);

/* A file that is mapped into a process. */
struct file {
    char *path;
    uint64_t from, to; /* all of its mappings lie in between */
    uint64_t bias;     /* what is added to the addresses in the file */
    char *image;       /* the file, or NULL if it can't be read or is no ELF file */
    size_t size;
    struct file *next;
};

/* The files that are mapped into a process; NULL if there are none, or with errno. */
struct file *files_of(pid_t pid);
void forget_files(struct file *files);

/* The address of a section in the process; 0 if no file has one of this name. */
uint64_t find_section(struct file *files, const char *name);

/* Write the name of the function at this address, or its offset in its file. */
void name_of(struct file *files, uint64_t address, char *text, size_t size);

#endif
