// The door to Linux: what glibc declares as macros, unions or variadics and Swift cannot import as they are.
// Never define _GNU_SOURCE here: the Swift overlay of glibc is compiled without it and the types would differ.
#pragma once
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
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
#include <sys/syscall.h>
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
static inline int hc_bind(int fd, const struct sockaddr_storage *address, socklen_t length) {
    return bind(fd, (const struct sockaddr *)address, length);
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
static inline void hc_disable_core_dumps(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
}

/// SIG_IGN is a macro with a cast. The disposition is of the whole process.
static inline void hc_ignore_signal(int number) { signal(number, SIG_IGN); }

static inline int hc_wait_exited(int status) { return WIFEXITED(status); }
static inline int hc_wait_exit_code(int status) { return WEXITSTATUS(status); }
static inline int hc_wait_signaled(int status) { return WIFSIGNALED(status); }
static inline int hc_wait_signal(int status) { return WTERMSIG(status); }

// One socket address of any family: written and read here, so that Swift never casts between sockaddr types.
static inline socklen_t hc_address_set_in(struct sockaddr_storage *storage, uint32_t host, uint16_t port) {
    struct sockaddr_in *address = (struct sockaddr_in *)storage;
    memset(storage, 0, sizeof(*storage));
    address->sin_family = AF_INET;
    address->sin_port = htons(port);
    address->sin_addr.s_addr = htonl(host);
    return sizeof(*address);
}
static inline socklen_t hc_address_set_in6(
    struct sockaddr_storage *storage, const uint8_t host[16], uint32_t scope, uint16_t port) {
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)storage;
    memset(storage, 0, sizeof(*storage));
    address->sin6_family = AF_INET6;
    address->sin6_port = htons(port);
    address->sin6_scope_id = scope;
    memcpy(&address->sin6_addr, host, 16);
    return sizeof(*address);
}
/// 0 if the path does not fit (man 7 unix: 107 bytes and a NUL).
static inline socklen_t hc_address_set_un(struct sockaddr_storage *storage, const char *path) {
    struct sockaddr_un *address = (struct sockaddr_un *)storage;
    size_t length = strlen(path);
    memset(storage, 0, sizeof(*storage));
    if (length == 0 || length >= sizeof(address->sun_path)) return 0;
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length + 1);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
}
static inline int hc_address_family(const struct sockaddr_storage *storage) { return storage->ss_family; }
static inline uint32_t hc_address_in_host(const struct sockaddr_storage *storage) {
    return ntohl(((const struct sockaddr_in *)storage)->sin_addr.s_addr);
}
/// The port of an IPv4 or IPv6 address: both structures have it in the same place.
static inline uint16_t hc_address_port(const struct sockaddr_storage *storage) {
    return ntohs(((const struct sockaddr_in *)storage)->sin_port);
}
static inline void hc_address_in6_host(const struct sockaddr_storage *storage, uint8_t host[16]) {
    memcpy(host, &((const struct sockaddr_in6 *)storage)->sin6_addr, 16);
}
static inline uint32_t hc_address_in6_scope(const struct sockaddr_storage *storage) {
    return ((const struct sockaddr_in6 *)storage)->sin6_scope_id;
}
static inline const char *hc_address_un_path(const struct sockaddr_storage *storage) {
    return ((const struct sockaddr_un *)storage)->sun_path;
}
/// Copies what getaddrinfo found; 0 for a family that has no place here.
static inline socklen_t hc_address_copy(struct sockaddr_storage *storage, const struct addrinfo *info) {
    memset(storage, 0, sizeof(*storage));
    if (info->ai_addrlen > sizeof(*storage)) return 0;
    memcpy(storage, info->ai_addr, info->ai_addrlen);
    return info->ai_addrlen;
}

/// From now on the kernel drops what comes in for a listening socket (man 7 socket, SO_ATTACH_FILTER): no connection is
/// added to its queue, which stays as it is.
static inline int hc_drop_incoming(int fd) {
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &drop};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

/// A descriptor that becomes readable when the process ends (man pidfd_open; it is close-on-exec by itself).
static inline int hc_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

/// Runs another program in this process (man execveat, AT_EMPTY_PATH): the one that `fd` has open, whatever its path
/// leads to by now. Returns only on failure.
static inline int hc_execute(int fd, char *const arguments[], char *const environment[]) {
    return (int)syscall(SYS_execveat, fd, "", arguments, environment, 0x1000 /* AT_EMPTY_PATH */);
}
/// What `ps` calls this process: at most 15 bytes (man PR_SET_NAME).
static inline void hc_set_process_name(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
/// The path that the kernel was given to start this program, NULL if it does not say (man getauxval, AT_EXECFN).
static inline const char *hc_execution_path(void) { return (const char *)getauxval(31); }

/// A file in memory that has no name in any directory, close-on-exec (man memfd_create). Kernels before 6.3 do not
/// know that it shall never be executable.
static inline int hc_memory_file(const char *name) {
    int fd = (int)syscall(SYS_memfd_create, name, 1 /* CLOEXEC */ | 2 /* ALLOW_SEALING */ | 8 /* NOEXEC_SEAL */);
    if (fd >= 0 || errno != EINVAL) return fd;
    return (int)syscall(SYS_memfd_create, name, 1 | 2);
}
/// From now on nobody can change a memory file (man F_ADD_SEALS): SEAL, SHRINK, GROW and WRITE.
static inline int hc_seal(int fd) { return fcntl(fd, 1033 /* F_ADD_SEALS */, 1 | 2 | 4 | 8); }

/// CPUs that this process may run on (man sched_getaffinity), -1 with errno on failure.
static inline int hc_affinity_count(void) {
    unsigned long mask[256];
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof(mask), mask);
    if (bytes < 0) return -1;
    int count = 0;
    for (size_t i = 0; i < (size_t)bytes / sizeof(mask[0]); i++) count += __builtin_popcountl(mask[i]);
    return count;
}

/// Raises the soft limit of open files to the hard one and says what it is now (man setrlimit).
static inline int hc_raise_open_files_limit(unsigned long *limit) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return -1;
    files.rlim_cur = files.rlim_max;
    *limit = files.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &files);
}

// The Swift runtime hands a job that has no executor of its own to this variable, if it is set (swift/Runtime/Concurrency.h):
// exported and declared nowhere. `hc_loop_enqueue` is HCIO's.
typedef __attribute__((swiftcall)) void (*hc_enqueue_global)(void *job);
typedef __attribute__((swiftcall)) void (*hc_enqueue_global_hook)(void *job, hc_enqueue_global original);
extern hc_enqueue_global_hook swift_task_enqueueGlobal_hook;
extern void hc_loop_enqueue(void *job);

static __attribute__((swiftcall)) void hc_enqueue_on_loop(void *job, hc_enqueue_global original) {
    (void)original;
    hc_loop_enqueue(job);
}
static inline void hc_take_global_executor(void) { swift_task_enqueueGlobal_hook = hc_enqueue_on_loop; }
