/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http.h - what httpd and sql-gateway need to know of HTTP/1.1, apart from jobs
 */
#ifndef HTTPD_HTTP_H
#define HTTPD_HTTP_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    OUTPUT_SIZE = 1024,      /* a response head and a small body */
    NAME_MOST = 8192,        /* the longest name of a file */
    SEND_PER_TURN = 1 << 20, /* bytes of a file, then others are served */
};

struct request {
    char *target; /* the path, decoded */
    char *query;  /* what follows its question mark, or an empty string */
    bool head;
    bool keep; /* the connection stays open */
    bool body; /* one follows */
};

/* A response: a head, and a body that stands behind it or is in a file. */
struct response {
    size_t at, length; /* text[at] to text[length - 1] is to be sent; length 0: there is none */
    int file;          /* or -1 */
    off_t file_left;   /* bytes of it to send */
    char text[OUTPUT_SIZE];
};

static const char *http_reason(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "HTTP Version Not Supported"; /* 505 */
    }
}

/* Write the head of a response. Returns its length. */
static size_t http_head(char *to, size_t size, int status, const char *type, long long length,
                        bool keep)
{
    char date[64];
    struct tm tm;
    time_t now = time(NULL);

    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    return (size_t)snprintf(to, size,
                            "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n"
                            "Content-Length: %lld\r\n%s%sConnection: %s\r\n\r\n",
                            status, http_reason(status), date, type, length,
                            status == 405 ? "Allow: GET, HEAD\r\n" : "",
                            status == 503 ? "Retry-After: 1\r\n" : "",
                            keep ? "keep-alive" : "close");
}

/* The type of a file, by the end of its name. */
static inline const char *http_type(const char *path)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"}, {".css", "text/css"},  {".js", "text/javascript"},
        {".txt", "text/plain; charset=utf-8"}, {".png", "image/png"}, {".jpg", "image/jpeg"},
        {".json", "application/json"},         {".svg", "image/svg+xml"},
    };
    const char *dot = strrchr(path, '.');

    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++) {
        if (strcasecmp(dot, types[i][0]) == 0) {
            return types[i][1];
        }
    }
    return "application/octet-stream";
}

static int hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode a path in place. False if it is no path, or leads out of the root. */
static bool decode_path(char *path)
{
    char *to = path;

    if (*path != '/') {
        return false;
    }
    for (const char *from = path; *from; to++) {
        if (*from != '%') {
            *to = *from++;
            continue;
        }
        int high = hex(from[1]);
        int low = high < 0 ? -1 : hex(from[2]);
        if (low < 0 || (high == 0 && low == 0)) {
            return false;
        }
        *to = (char)(high << 4 | low);
        from += 3;
    }
    *to = '\0';
    for (const char *at = path; at; at = strchr(at, '/')) {
        at++;
        if (at[0] == '.' && at[1] == '.' && (at[2] == '/' || at[2] == '\0')) {
            return false;
        }
    }
    return true;
}

/* The number in a query of the form name=number, or -1. */
static inline long http_number(const char *query, const char *name, long most)
{
    size_t length = strlen(name);
    char *end;

    if (strncmp(query, name, length) != 0 || query[length] != '=' ||
        query[length + 1] < '0' || query[length + 1] > '9') {
        return -1;
    }
    long value = strtol(query + length + 1, &end, 10);
    return *end == '\0' && value <= most ? value : -1;
}

/* Whether a list such as "keep-alive, Upgrade" has a token in it. */
static bool has_token(const char *list, const char *token)
{
    while (*list) {
        size_t length = strcspn(list, ", \t");
        if (length == strlen(token) && strncasecmp(list, token, length) == 0) {
            return true;
        }
        list += length;
        list += strspn(list, ", \t");
    }
    return false;
}

/* Take a request head apart, in place. Returns the status to refuse it with, or 0. */
static int http_parse(char *head, struct request *r)
{
    char *save;
    char *line = strtok_r(head, "\r\n", &save);
    char *target = line ? strchr(line, ' ') : NULL;
    char *version = target ? strchr(target + 1, ' ') : NULL;
    bool host = false;

    if (!version || target == line) {
        return 400;
    }
    *target++ = '\0';
    *version++ = '\0';
    if (strncmp(version, "HTTP/", 5) != 0) {
        return 400;
    }
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        return 505;
    }
    r->head = strcmp(line, "HEAD") == 0;
    r->keep = version[7] == '1';
    bool known = r->head || strcmp(line, "GET") == 0;
    bool old = !r->keep;
    while ((line = strtok_r(NULL, "\r\n", &save))) {
        size_t name = strcspn(line, ": \t");
        if (name == 0 || line[name] != ':') {
            return 400;
        }
        line[name] = '\0';
        char *value = line + name + 1;
        value += strspn(value, " \t");
        if (strcasecmp(line, "Host") == 0) {
            host = true;
        } else if (strcasecmp(line, "Connection") == 0) {
            r->keep = old ? has_token(value, "keep-alive") : r->keep && !has_token(value, "close");
        } else if (strcasecmp(line, "Transfer-Encoding") == 0) {
            r->body = true;
        } else if (strcasecmp(line, "Content-Length") == 0) {
            size_t digits = strspn(value, "0123456789");
            if (digits == 0 || value[digits + strspn(value + digits, " \t")] != '\0') {
                return 400;
            }
            r->body = r->body || strspn(value, "0") != digits;
        }
    }
    /* The absolute form, that proxies send: the path begins after the authority. */
    if (strncasecmp(target, "http://", 7) == 0) {
        target += 7 + strcspn(target + 7, "/");
    }
    target[strcspn(target, "#")] = '\0';
    r->target = target;
    r->query = target + strcspn(target, "?");
    if (*r->query != '\0') {
        *r->query++ = '\0';
    }
    if (!host && !old) {
        return 400;
    }
    return !known ? 405 : r->body ? 413 : decode_path(target) ? 0 : 400;
}

/*
 * Responses
 */

static inline void http_begin(struct response *to, const struct request *r, int status,
                              const char *type, long long length)
{
    to->at = 0;
    to->length = http_head(to->text, sizeof to->text, status, type, length, r->keep);
}

/* Respond with a short text. */
static inline void http_text(struct response *to, const struct request *r, int status,
                             const char *type, const char *text)
{
    size_t length = strlen(text);

    http_begin(to, r, status, type, (long long)length);
    if (!r->head) {
        memcpy(to->text + to->length, text, length);
        to->length += length;
    }
}

static inline void http_error(struct response *to, const struct request *r, int status)
{
    char text[64];

    snprintf(text, sizeof text, "%d %s\n", status, http_reason(status));
    http_text(to, r, status, "text/plain", text);
}

/* The same for a text of any length. It is sent from a file in memory, so connections need no more room. */
static inline void http_long_text(struct response *to, const struct request *r, const char *type,
                                  const char *text, size_t length)
{
    int file = memfd_create("response", MFD_CLOEXEC);

    if (file < 0 || write(file, text, length) != (ssize_t)length || lseek(file, 0, SEEK_SET) != 0) {
        if (file >= 0) {
            close(file);
        }
        http_error(to, r, 503);
        return;
    }
    http_begin(to, r, 200, type, (long long)length);
    if (r->head) {
        close(file);
    } else {
        to->file = file;
        to->file_left = (off_t)length;
    }
}

/* Respond with the file that the request names, below `root`, or say that there is none. */
static inline void http_file(struct response *to, const struct request *r, int root)
{
    char name[NAME_MOST + sizeof "index.html"];
    struct stat st;

    /* All leading slashes: a second one would make the name absolute again. */
    const char *path = r->target + strspn(r->target, "/");
    size_t length = strlen(path);
    snprintf(name, sizeof name, "%s%s", path,
             length == 0 || path[length - 1] == '/' ? "index.html" : "");
    /* O_NONBLOCK: opening a FIFO must not hold the worker. */
    int file = openat(root, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        http_error(to, r, errno == EMFILE || errno == ENFILE ? 503 : 404);
        return;
    }
    if (fstat(file, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(file);
        http_error(to, r, 404);
        return;
    }
    http_begin(to, r, 200, http_type(name), (long long)st.st_size);
    if (r->head || st.st_size == 0) {
        close(file);
        return;
    }
    to->file = file;
    to->file_left = st.st_size;
}

/* Close its file. */
static inline void http_forget(struct response *from)
{
    if (from->file >= 0) {
        close(from->file);
        from->file = -1;
    }
}

enum sent {
    SENT,
    LATER, /* the socket takes no more now, or it is the others' turn */
    LOST,
};

/* Send as much as a non-blocking socket takes. */
static inline enum sent http_send(struct response *from, int fd)
{
    while (from->at < from->length) {
        /* MSG_MORE: head and beginning of the file in one packet. */
        ssize_t n = send(fd, from->text + from->at, from->length - from->at,
                         MSG_NOSIGNAL | (from->file >= 0 ? MSG_MORE : 0));
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR ? LATER : LOST;
        }
        from->at += (size_t)n;
    }
    if (from->file >= 0) {
        size_t most = from->file_left < SEND_PER_TURN ? (size_t)from->file_left : SEND_PER_TURN;
        ssize_t n = sendfile(fd, from->file, NULL, most);
        if (n <= 0) {
            /* 0: the file has become shorter than the length that was promised. */
            return n < 0 && (errno == EAGAIN || errno == EINTR) ? LATER : LOST;
        }
        from->file_left -= n;
        if (from->file_left > 0) {
            return LATER;
        }
        http_forget(from);
    }
    from->at = from->length = 0;
    return SENT;
}

#endif
