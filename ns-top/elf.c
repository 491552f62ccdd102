/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The files that another process has mapped: where they are, their sections, the names of functions. */
#define _GNU_SOURCE
#include "ns-top.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

typedef ElfW(Ehdr) Ehdr;
typedef ElfW(Phdr) Phdr;
typedef ElfW(Shdr) Shdr;
typedef ElfW(Sym) Sym;

int peek(pid_t pid, uint64_t at, void *into, size_t size)
{
    struct iovec here = {into, size};
    struct iovec there = {(void *)(uintptr_t)at, size};
    ssize_t got = process_vm_readv(pid, &here, 1, &there, 1, 0);
    if (got >= 0 && (size_t)got != size) {
        errno = EFAULT;
    }
    return got >= 0 && (size_t)got == size ? 0 : -1;
}

/* A part of a file, if the file is long enough. */
static const void *part(const struct file *file, uint64_t at, uint64_t size)
{
    return at <= file->size && size <= file->size - at ? file->image + at : NULL;
}

static const Ehdr *header_of(const struct file *file)
{
    const Ehdr *header = part(file, 0, sizeof *header);
    int class = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
    if (header == NULL || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != class) {
        return NULL;
    }
    return header;
}

/* Map the file itself. The process may see another file system than we do, and its file may be deleted. */
static void open_file(pid_t pid, struct file *file, const char *range)
{
    char path[4200];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/map_files/%s", (int)pid, range);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(path, sizeof path, "/proc/%d/root%s", (int)pid, file->path);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0) {
        return;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
        void *image = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (image != MAP_FAILED) {
            file->image = image;
            file->size = (size_t)status.st_size;
        }
    }
    close(fd);
    if (file->image != NULL && header_of(file) == NULL) {
        munmap(file->image, file->size);
        file->image = NULL;
    }
}

/* What is added to an address in the file, if its offset `offset` is mapped at `from`. */
static uint64_t bias_of(const struct file *file, uint64_t from, uint64_t offset)
{
    const Ehdr *header = header_of(file);
    long page = sysconf(_SC_PAGESIZE);
    for (int i = 0; i < header->e_phnum; i++) {
        const Phdr *segment = part(file, header->e_phoff + (uint64_t)i * header->e_phentsize, sizeof *segment);
        if (segment != NULL && segment->p_type == PT_LOAD &&
            segment->p_offset / (uint64_t)page * (uint64_t)page == offset) {
            return from - segment->p_vaddr / (uint64_t)page * (uint64_t)page;
        }
    }
    return 0;
}

struct file *files_of(pid_t pid)
{
    char name[64], line[4600];
    struct file *files = NULL, *file;
    snprintf(name, sizeof name, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(name, "re");
    if (maps == NULL) {
        return NULL;
    }
    while (fgets(line, sizeof line, maps) != NULL) {
        uint64_t from, to, offset;
        char range[80];
        int at = 0;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %*s %n", &from, &to, &offset, &at) < 3 ||
            line[at] != '/') {
            continue;
        }
        for (file = files; file != NULL && strcmp(file->path, line + at) != 0; file = file->next) {
        }
        if (file != NULL) {
            file->to = to;
            continue;
        }
        file = calloc(1, sizeof *file);
        char *path = strdup(line + at);
        if (file == NULL || path == NULL) {
            free(file);
            free(path);
            break;
        }
        *file = (struct file){path, from, to, 0, NULL, 0, files};
        snprintf(range, sizeof range, "%" PRIx64 "-%" PRIx64, from, to);
        open_file(pid, file, range);
        if (file->image != NULL) {
            file->bias = bias_of(file, from, offset);
        }
        files = file;
    }
    fclose(maps);
    return files;
}

void forget_files(struct file *files)
{
    while (files != NULL) {
        struct file *next = files->next;
        if (files->image != NULL) {
            munmap(files->image, files->size);
        }
        free(files->path);
        free(files);
        files = next;
    }
}

/* Section number i, or NULL. */
static const Shdr *section(const struct file *file, unsigned i)
{
    const Ehdr *header = header_of(file);
    if (header == NULL || i >= header->e_shnum) {
        return NULL;
    }
    return part(file, header->e_shoff + (uint64_t)i * header->e_shentsize, sizeof(Shdr));
}

/* The string at an offset in a section of strings, or "". */
static const char *string(const struct file *file, const Shdr *strings, uint64_t at)
{
    if (strings == NULL || at >= strings->sh_size || part(file, strings->sh_offset, strings->sh_size) == NULL) {
        return "";
    }
    const char *text = file->image + strings->sh_offset + at;
    return memchr(text, '\0', strings->sh_size - at) != NULL ? text : "";
}

uint64_t find_section(struct file *files, const char *name)
{
    for (struct file *file = files; file != NULL; file = file->next) {
        const Shdr *one;
        if (file->image == NULL) {
            continue;
        }
        const Shdr *names = section(file, header_of(file)->e_shstrndx);
        for (unsigned i = 0; (one = section(file, i)) != NULL; i++) {
            if (one->sh_addr != 0 && strcmp(string(file, names, one->sh_name), name) == 0) {
                return file->bias + one->sh_addr;
            }
        }
    }
    return 0;
}

/* The function that has this address in the file, from the symbols of this kind. */
static const char *symbol(const struct file *file, unsigned kind, uint64_t address)
{
    const Shdr *one;
    for (unsigned i = 0; (one = section(file, i)) != NULL; i++) {
        if (one->sh_type != kind || part(file, one->sh_offset, one->sh_size) == NULL) {
            continue;
        }
        const Shdr *strings = section(file, one->sh_link);
        const Sym *symbols = (const Sym *)(file->image + one->sh_offset);
        for (uint64_t at = 0; at < one->sh_size / sizeof *symbols; at++) {
            const Sym *this = &symbols[at];
            int is_function = (this->st_info & 15) == STT_FUNC && this->st_shndx != SHN_UNDEF;
            if (is_function && address - this->st_value < (this->st_size > 0 ? this->st_size : 1)) {
                return string(file, strings, this->st_name);
            }
        }
    }
    return "";
}

void name_of(struct file *files, uint64_t address, char *text, size_t size)
{
    struct file *file = files;
    while (file != NULL && (address < file->from || address >= file->to)) {
        file = file->next;
    }
    if (file == NULL) {
        snprintf(text, size, "%#" PRIx64, address);
        return;
    }
    const char *name = "";
    if (file->image != NULL) {
        name = symbol(file, SHT_SYMTAB, address - file->bias);
        name = *name != '\0' ? name : symbol(file, SHT_DYNSYM, address - file->bias);
    }
    if (*name != '\0') {
        snprintf(text, size, "%.100s", name);
    } else {
        const char *base = strrchr(file->path, '/') + 1;
        snprintf(text, size, "%.60s+%#" PRIx64, base, address - (file->image != NULL ? file->bias : file->from));
    }
}
