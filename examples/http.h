/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http.h - what httpd needs to know of HTTP/1.1, apart from jobs and sockets
 */
#ifndef HTTPD_HTTP_H
#define HTTPD_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct request {
    char *target;
    bool head;
    bool keep; /* the connection stays open */
    bool body; /* one follows */
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
    case 503: return "Service Unavailable";
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
                            "Content-Length: %lld\r\n%sConnection: %s\r\n\r\n",
                            status, http_reason(status), date, type, length,
                            status == 405 ? "Allow: GET, HEAD\r\n" : "",
                            keep ? "keep-alive" : "close");
}

/* The type of a file, by the end of its name. */
static const char *http_type(const char *path)
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

    path[strcspn(path, "?#")] = '\0';
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
    r->target = target;
    if (!host && !old) {
        return 400;
    }
    return !known ? 405 : r->body ? 413 : decode_path(target) ? 0 : 400;
}

#endif
