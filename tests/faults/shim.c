/* Stands between a process and Linux, by LD_PRELOAD: fails, cuts short, ends or records its calls on the files below one
 * folder, and shifts its wall clock by the seconds that stand in the file SHIM_CLOCK (int64; a name that `dtolbus up` hands on).
 *
 * The process itself says when, through ctypes: shim_begin(root, log), then shim_rule(...), shim_mark(...).
 * Calls go to the kernel by syscall(2), so whoever calls libc (Python, SQLite, Arrow) passes here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#if __SIZEOF_POINTER__ != 8
#error "the shim passes offsets to the kernel as one word: 64-bit only"
#endif

enum { OPEN = 1, WRITE = 2, TRUNCATE = 4, SYNC = 8, NAME = 16, CLOSE = 32 }; /* kinds of calls, as a mask */
enum { COUNT, KILL, TORN, SHORT, ERROR };                                  /* what a rule does */
enum { MAX_RULES = 8, MAX_FD = 65536, MAX_PARTS = 1024 };

struct rule {
    int what, kinds, error;
    long at, count, seen;
};

struct entry { /* what stands in the log before the two byte strings */
    int32_t kind, pid;
    int64_t a, b, first_bytes, second_bytes;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static int log_fd = -1;
static struct rule rules[MAX_RULES];
static int rule_count;
static unsigned char is_counted[MAX_FD];
static const int64_t *clock_shift_s;

/* ---- what the process calls ---- */

/* Count the calls below the folder from here on; record them at the end of the log, where there is one. */
int shim_begin(const char *folder, const char *log) {
    snprintf(root, sizeof root, "%s/", folder);
    log_fd = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    return log && log_fd < 0 ? -1 : 0;
}

/* From the call `at` of these kinds on (0 is the next), do this to so many of them; return the rule's number. */
int shim_rule(int what, int kinds, long at, long count, int error) {
    pthread_mutex_lock(&mutex);
    int number = rule_count < MAX_RULES ? rule_count++ : -1;
    if (number >= 0) rules[number] = (struct rule){what, kinds, error, at, count, 0};
    pthread_mutex_unlock(&mutex);
    return number;
}

/* How many calls the rule has seen. */
long shim_seen(int number) { return rules[number].seen; }

/* From here on no rule does anything. */
void shim_heal(void) {
    pthread_mutex_lock(&mutex);
    for (int k = 0; k < rule_count; k++) rules[k].what = COUNT;
    pthread_mutex_unlock(&mutex);
}

static void record(int kind, int64_t a, int64_t b, const void *first, size_t n, const void *second, size_t m) {
    if (log_fd < 0) return;
    struct entry head = {kind, getpid(), a, b, n, m};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)first, n}, {(void *)second, m}};
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)(sizeof head + n + m)) abort();
}

/* Write into the log that the process has told somebody this number. */
void shim_mark(int64_t number) {
    pthread_mutex_lock(&mutex);
    record('!', number, 0, "", 0, "", 0);
    pthread_mutex_unlock(&mutex);
}

/* ---- which calls count, and what happens to them ---- */

static int absolute(int folder, const char *path, char *out) {
    if (!root[0]) return 0;
    char at[64], base[PATH_MAX] = "";
    if (path[0] != '/') {
        if (folder == AT_FDCWD) snprintf(at, sizeof at, "/proc/self/cwd");
        else snprintf(at, sizeof at, "/proc/self/fd/%d", folder);
        ssize_t size = readlink(at, base, sizeof base - 2);
        if (size < 0) return 0;
        base[size] = '/';
    }
    snprintf(out, PATH_MAX, "%s%s", base, path);
    return strncmp(out, root, strlen(root)) == 0 || strncmp(out, root, strlen(root) - 1) == 0;
}

static int counts(int fd) { return root[0] && fd >= 0 && fd < MAX_FD && is_counted[fd]; }

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Return the rule for this call, if there is one; a KILL ends the process here. */
static struct rule *meet(int kind) {
    struct rule *found = NULL;
    for (int k = 0; k < rule_count; k++) {
        struct rule *rule = &rules[k];
        if (!(rule->kinds & kind)) continue;
        long number = rule->seen++;
        if (number >= rule->at && number < rule->at + rule->count && rule->what != COUNT) found = rule;
    }
    if (found && found->what == KILL) die();
    return found;
}

static int refuse(const struct rule *rule) {
    if (!rule || rule->what != ERROR) return 0;
    errno = rule->error;
    return 1;
}

/* ---- open and close ---- */

static int do_open(int folder, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!absolute(folder, path, full)) return syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&mutex);
    int fd = -1;
    if (!refuse(meet(OPEN))) {
        int is_new = flags & O_CREAT && syscall(SYS_faccessat, folder, path, F_OK) < 0;
        fd = syscall(SYS_openat, folder, path, flags, mode);
        if (fd >= 0 && fd < MAX_FD) {
            is_counted[fd] = 1;
            record('o', fd, is_new | (flags & O_TRUNC && !is_new ? 2 : 0), full, strlen(full), "", 0);
        }
    }
    pthread_mutex_unlock(&mutex);
    return fd;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, last); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags, flags) return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, flags) return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, flags) return do_open(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }

int close(int fd) {
    if (!counts(fd)) return syscall(SYS_close, fd);
    pthread_mutex_lock(&mutex);
    meet(CLOSE);
    is_counted[fd] = 0;
    record('c', fd, 0, "", 0, "", 0);
    int result = syscall(SYS_close, fd);
    pthread_mutex_unlock(&mutex);
    return result;
}

/* ---- writes: `at` is −1 for the file's own position ---- */

static ssize_t kernel_write(int fd, const struct iovec *parts, int count, off_t at) {
    return at < 0 ? syscall(SYS_writev, fd, parts, count) : syscall(SYS_pwritev, fd, parts, count, at, 0);
}

static ssize_t counted_write(int fd, const struct iovec *parts, int count, off_t at) {
    struct rule *rule = meet(WRITE);
    if (refuse(rule)) return -1;
    struct iovec cut[MAX_PARTS];
    size_t total = 0, left;
    for (int k = 0; k < count; k++) total += parts[k].iov_len;
    left = rule ? (total + (rule->what == SHORT)) / 2 : total;
    for (int k = 0; k < count; k++) {
        cut[k] = parts[k];
        if (cut[k].iov_len > left) cut[k].iov_len = left;
        left -= cut[k].iov_len;
    }
    ssize_t done = kernel_write(fd, cut, count, at);
    if (done > 0) {
        off_t end = at < 0 ? lseek(fd, 0, SEEK_CUR) : at + done, offset = end - done;
        for (int k = 0; k < count && offset < end; offset += cut[k++].iov_len) {
            size_t n = cut[k].iov_len < (size_t)(end - offset) ? cut[k].iov_len : (size_t)(end - offset);
            if (n) record('w', fd, offset, cut[k].iov_base, n, "", 0);
        }
    }
    if (rule && rule->what == TORN) die();
    return done;
}

static ssize_t do_write(int fd, const struct iovec *parts, int count, off_t at) {
    if (!counts(fd) || count > MAX_PARTS) return kernel_write(fd, parts, count, at);
    pthread_mutex_lock(&mutex);
    ssize_t done = counted_write(fd, parts, count, at);
    pthread_mutex_unlock(&mutex);
    return done;
}

#define ONE(data, size) &(struct iovec){(void *)(data), size}, 1
ssize_t write(int fd, const void *data, size_t size) { return do_write(fd, ONE(data, size), -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return do_write(fd, ONE(data, size), at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return do_write(fd, ONE(data, size), at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return do_write(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return do_write(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return do_write(fd, parts, count, at); }

/* ---- truncation and syncs: a sync that fails is recorded too, for what it should have synced is lost ---- */

static int on_file(int call, int fd, int kind, int letter, off_t size) {
    if (!counts(fd)) return syscall(call, fd, size);
    pthread_mutex_lock(&mutex);
    int result = refuse(meet(kind)) ? -1 : syscall(call, fd, size);
    if (result == 0 || kind == SYNC) record(result == 0 ? letter : 'f', fd, size, "", 0, "", 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int ftruncate(int fd, off_t size) { return on_file(SYS_ftruncate, fd, TRUNCATE, 't', size); }
int ftruncate64(int fd, off64_t size) { return on_file(SYS_ftruncate, fd, TRUNCATE, 't', size); }
int fsync(int fd) { return on_file(SYS_fsync, fd, SYNC, 's', 0); }
int fdatasync(int fd) { return on_file(SYS_fdatasync, fd, SYNC, 's', 0); }

/* ---- names ---- */

static int on_name(int letter, int at, const char *path, int flags, mode_t mode) {
    int call = letter == 'm' ? SYS_mkdirat : SYS_unlinkat;
    long last = letter == 'm' ? (long)mode : flags;
    char full[PATH_MAX];
    if (!absolute(at, path, full)) return syscall(call, at, path, last);
    pthread_mutex_lock(&mutex);
    int result = refuse(meet(NAME)) ? -1 : syscall(call, at, path, last);
    if (result == 0) record(letter, 0, 0, full, strlen(full), "", 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

static int on_names(int letter, int at, const char *old, int new_at, const char *new, unsigned flags) {
    int call = letter == 'l' ? SYS_linkat : SYS_renameat2;
    char from[PATH_MAX], to[PATH_MAX];
    if (!absolute(at, old, from) || !absolute(new_at, new, to)) return syscall(call, at, old, new_at, new, flags);
    pthread_mutex_lock(&mutex);
    int result = refuse(meet(NAME)) ? -1 : syscall(call, at, old, new_at, new, flags);
    if (result == 0) record(letter, 0, 0, from, strlen(from), to, strlen(to));
    pthread_mutex_unlock(&mutex);
    return result;
}

int mkdir(const char *path, mode_t mode) { return on_name('m', AT_FDCWD, path, 0, mode); }
int mkdirat(int at, const char *path, mode_t mode) { return on_name('m', at, path, 0, mode); }
int unlink(const char *path) { return on_name('u', AT_FDCWD, path, 0, 0); }
int unlinkat(int at, const char *path, int flags) { return on_name('u', at, path, flags, 0); }
int rmdir(const char *path) { return on_name('u', AT_FDCWD, path, AT_REMOVEDIR, 0); }
int rename(const char *old, const char *new) { return on_names('r', AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int at, const char *old, int to, const char *new) { return on_names('r', at, old, to, new, 0); }
int renameat2(int at, const char *old, int to, const char *new, unsigned flags) {
    return on_names('r', at, old, to, new, flags);
}
int link(const char *old, const char *new) { return on_names('l', AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int at, const char *old, int to, const char *new, int flags) { return on_names('l', at, old, to, new, flags); }

/* ---- the wall clock ---- */

__attribute__((constructor)) static void map_clock(void) {
    const char *path = getenv("SHIM_CLOCK");
    int fd = path ? syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (found != MAP_FAILED) clock_shift_s = found;
    syscall(SYS_close, fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (result == 0 && is_wall && clock_shift_s) now->tv_sec += *clock_shift_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) < 0) return -1;
    *now = (struct timeval){exact.tv_sec, exact.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
