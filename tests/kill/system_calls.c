/* Ends its process with SIGKILL at one system call. Tests load it with LD_PRELOAD.

   KILL_CALL names the call: sync (fsync and fdatasync), write (also at a position), rename, unlink, flock, or
   statement (a step of an SQL statement that begins with KILL_STATEMENT, where SQLite is a shared library).
   KILL_NUMBER says which of these calls, from 1; calls on files outside of KILL_FOLDER don't count. KILL_WHEN
   is before, after, or within: a write that has written half of its bytes. */

#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int seen;

static int is_inside(const char *path) {
    const char *folder = getenv("KILL_FOLDER");
    return folder != NULL && (path[0] != '/' || strncmp(path, folder, strlen(folder)) == 0);
}

static int is_file_inside(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/') /* sockets and pipes have names such as socket:[7] */
        return 0;
    path[length] = 0;
    return is_inside(path);
}

/* Counts a call; returns whether the process ends with it. */
static int is_last(const char *call, int counts) {
    const char *wanted = getenv("KILL_CALL"), *number = getenv("KILL_NUMBER");
    if (wanted == NULL || number == NULL || strcmp(wanted, call) != 0 || !counts)
        return 0;
    return atomic_fetch_add(&seen, 1) + 1 == atoi(number);
}

static int is_when(const char *when) {
    const char *wanted = getenv("KILL_WHEN");
    return wanted != NULL && strcmp(wanted, when) == 0;
}

static void end(void) {
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ENDING(call, counts, type, real)         \
    int last = is_last(call, counts);            \
    if (last && !is_when("after"))               \
        end();                                   \
    type result = real;                          \
    if (last)                                    \
        end();                                   \
    return result;

int fsync(int file) { ENDING("sync", is_file_inside(file), int, REAL(fsync)(file)) }

int fdatasync(int file) { ENDING("sync", is_file_inside(file), int, REAL(fdatasync)(file)) }

int flock(int file, int how) { ENDING("flock", is_file_inside(file), int, REAL(flock)(file, how)) }

int rename(const char *from, const char *to) {
    ENDING("rename", is_inside(to), int, REAL(rename)(from, to))
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    ENDING("rename", is_inside(to), int, REAL(renameat)(from_folder, from, to_folder, to))
}

int unlink(const char *path) { ENDING("unlink", is_inside(path), int, REAL(unlink)(path)) }

int unlinkat(int folder, const char *path, int flags) {
    ENDING("unlink", is_inside(path), int, REAL(unlinkat)(folder, path, flags))
}

#define WRITING(real)                                        \
    int last = is_last("write", is_file_inside(file));       \
    if (last && is_when("before"))                           \
        end();                                               \
    size_t count = last && is_when("within") ? size / 2 : size; \
    ssize_t result = real;                                   \
    if (last)                                                \
        end();                                               \
    return result;

ssize_t write(int file, const void *bytes, size_t size) { WRITING(REAL(write)(file, bytes, count)) }

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) {
    WRITING(REAL(pwrite)(file, bytes, count, at))
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at) {
    WRITING(REAL(pwrite64)(file, bytes, count, at))
}

static void *of_sqlite(const char *name) {
    void *library = dlopen("libsqlite3.so.0", RTLD_LAZY | RTLD_NOLOAD);
    return library != NULL ? dlsym(library, name) : NULL;
}

static int is_wanted_statement(void *statement) {
    const char *wanted = getenv("KILL_STATEMENT");
    const char *(*text_of)(void *) = (const char *(*)(void *))of_sqlite("sqlite3_sql");
    const char *text = wanted != NULL && text_of != NULL ? text_of(statement) : NULL;
    while (text != NULL && isspace((unsigned char)*text))
        text++;
    return text != NULL && strncmp(text, wanted, strlen(wanted)) == 0;
}

int sqlite3_step(void *statement) {
    static int (*real)(void *);
    if (real == NULL)
        real = (int (*)(void *))of_sqlite("sqlite3_step");
    ENDING("statement", is_wanted_statement(statement), int, real(statement))
}
