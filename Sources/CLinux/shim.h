// The door to Linux: what glibc declares as macros, unions or variadics and Swift cannot import as they are.
// Never define _GNU_SOURCE here: the Swift overlay of glibc is compiled without it and the types would differ.
#pragma once
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
extern int pipe2(int descriptors[2], int flags);
extern int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from);
extern char **environ;

static inline int hc_errno(void) { return errno; }
static inline void hc_set_errno(int value) { errno = value; }
static inline char **hc_environ(void) { return environ; }

static inline int hc_fcntl(int fd, int command, int argument) { return fcntl(fd, command, argument); }
static inline int hc_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }

static inline struct epoll_event hc_epoll_event(uint32_t events, uint64_t data) {
    struct epoll_event event;
    event.events = events;
    event.data.u64 = data;
    return event;
}
static inline uint64_t hc_epoll_data(const struct epoll_event *event) { return event->data.u64; }

static inline int hc_bind_in(int fd, const struct sockaddr_in *address) {
    return bind(fd, (const struct sockaddr *)address, sizeof(*address));
}
static inline int hc_bind_in6(int fd, const struct sockaddr_in6 *address) {
    return bind(fd, (const struct sockaddr *)address, sizeof(*address));
}
static inline int hc_connect(int fd, const struct sockaddr_storage *address, socklen_t length) {
    return connect(fd, (const struct sockaddr *)address, length);
}
static inline int hc_accept4(int fd, struct sockaddr_storage *address, int flags) {
    socklen_t length = sizeof(*address);
    return accept4(fd, (struct sockaddr *)address, &length, flags);
}
static inline int hc_getsockname(int fd, struct sockaddr_storage *address) {
    socklen_t length = sizeof(*address);
    return getsockname(fd, (struct sockaddr *)address, &length);
}
static inline int hc_getpeername(int fd, struct sockaddr_storage *address) {
    socklen_t length = sizeof(*address);
    return getpeername(fd, (struct sockaddr *)address, &length);
}

/// The signal that the kernel sends to this process when its parent dies (man PR_SET_PDEATHSIG).
static inline int hc_set_parent_death_signal(int signal) { return prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0); }
/// Core dumps would hold keys and patient data (man PR_SET_DUMPABLE).
static inline int hc_set_dumpable(int dumpable) { return prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0); }

static inline int hc_wait_exited(int status) { return WIFEXITED(status); }
static inline int hc_wait_exit_code(int status) { return WEXITSTATUS(status); }
static inline int hc_wait_signaled(int status) { return WIFSIGNALED(status); }
static inline int hc_wait_signal(int status) { return WTERMSIG(status); }
