/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * result.c - a result of PostgreSQL's as text
 *
 * The form is that of COPY: a line for each row, a tab between columns, \N for NULL; backslash,
 * tab, newline and carriage return are escaped.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

/* Room for so many bytes more. */
static bool text_grow(struct text *text, size_t more)
{
    if (text->size - text->length >= more) {
        return true;
    }
    size_t size = text->size + text->size / 2 + more + 256;
    char *at = realloc(text->at, size);
    if (!at) {
        return false;
    }
    text->at = at;
    text->size = size;
    return true;
}

bool text_add(struct text *text, const char *more, size_t length)
{
    if (!text_grow(text, length)) {
        return false;
    }
    memcpy(text->at + text->length, more, length);
    text->length += length;
    return true;
}

bool text_print(struct text *text, const char *format, ...)
{
    char line[1024];
    va_list args;

    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0) {
        return false;
    }
    size_t most = sizeof line - 1;
    return text_add(text, line, (size_t)length < most ? (size_t)length : most);
}

void text_free(struct text *text)
{
    free(text->at);
    *text = (struct text){0};
}

static bool add_value(struct text *text, const char *value, size_t length)
{
    if (!text_grow(text, 2 * length)) {
        return false;
    }
    char *to = text->at + text->length;
    for (size_t i = 0; i < length; i++) {
        const char *escape = memchr("\\\\\tt\nn\rr", value[i], 8);
        /* Only the first of each pair is escaped, by the second. */
        if (escape && (value[i] == '\\' || value[i] < ' ')) {
            *to++ = '\\';
            *to++ = escape[1];
        } else {
            *to++ = value[i];
        }
    }
    text->length = (size_t)(to - text->at);
    return true;
}

/* False when there is no memory: the text then ends somewhere. */
bool result_add_rows(struct text *text, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        for (int column = 0; column < PQnfields(result); column++) {
            bool added = column == 0 || text_add(text, "\t", 1);
            if (PQgetisnull(result, row, column)) {
                added = added && text_add(text, "\\N", 2);
            } else {
                added = added && add_value(text, PQgetvalue(result, row, column),
                                           (size_t)PQgetlength(result, row, column));
            }
            if (!added) {
                return false;
            }
        }
        if (!text_add(text, "\n", 1)) {
            return false;
        }
    }
    return true;
}
