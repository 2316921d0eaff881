/* Preloaded by tests: refuses and logs outside connections, and plays a disk that fills up.

   SHIM_LOG    file that gets one line for every refused connection or name look-up
   SHIM_FULL   folder on the disk that fills up
   SHIM_BYTES  how many bytes a process may still write there  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static ssize_t (*real_sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
static int (*real_getaddrinfo)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

__attribute__((constructor)) static void find(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_connect = dlsym(RTLD_NEXT, "connect");
    real_sendto = dlsym(RTLD_NEXT, "sendto");
    real_getaddrinfo = dlsym(RTLD_NEXT, "getaddrinfo");
}

static void note(const char *what) {
    const char *path = getenv("SHIM_LOG");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd < 0) return;
    char line[256];
    int length = snprintf(line, sizeof line, "%s\n", what);
    real_write(fd, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
    close(fd);
}

static int outside(const struct sockaddr *address) {
    if (!address) return 0;
    if (address->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) != 127;
    if (address->sa_family == AF_INET6)
        return !IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return 0;
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    if (!outside(address)) return real_connect(fd, address, length);
    note("connect");
    errno = ENETUNREACH;
    return -1;
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t length) {
    if (!outside(to)) return real_sendto(fd, data, n, flags, to, length);
    note("sendto");
    errno = ENETUNREACH;
    return -1;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    if (!node || !strcmp(node, "localhost") || !strncmp(node, "127.", 4) || !strcmp(node, "::1"))
        return real_getaddrinfo(node, service, hints, found);
    note(node);
    return EAI_FAIL;
}

ssize_t write(int fd, const void *data, size_t n) {
    static long left = -1;
    const char *folder = getenv("SHIM_FULL"), *bytes = getenv("SHIM_BYTES");
    if (folder && bytes) {
        char link[64], path[4096];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 1);
        if (length > 0) {
            path[length] = 0;
            if (!strncmp(path, folder, strlen(folder))) {
                if (left < 0) left = atol(bytes);
                if ((long)n > left) {
                    errno = ENOSPC;
                    return -1;
                }
                left -= (long)n;
            }
        }
    }
    return real_write(fd, data, n);
}
