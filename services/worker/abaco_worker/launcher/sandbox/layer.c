/*
 * The directory of a slot on the machine's disk. It holds what a program writes. No container mounts the
 * folder that it is in. It is not a tmpfs: files there would be counted as the program's memory.
 *
 *   upper      of the overlay; new for each message
 *   work       of the overlay; empty between messages
 *   root       where the overlay is mounted while it is made
 *   files      where a tmpfs with copies of hosts, hostname and resolv.conf is mounted meanwhile
 *   <number>   upper and work of a volume
 *   removed    what a second process removes, so that the next message need not wait for it
 */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEPTH 32
#define AT_ONCE 64              /* entries that are removed before the next sandbox is made */
#define LARGE_BLOCKS (16 * 1024) /* of 512 bytes: a file that takes long to remove */
#define MAX_WAITING 8           /* layers that wait for the second process */
#define NAME_TRIES 1000
#define ANY -1
#define REMOVED "removed"

static int folder = -1, removed = -1;
static int allowance = ANY;   /* entries that may still be removed here */
static uint64_t next_name;    /* in the directory of what is removed */
static unsigned int moved;    /* there, by this process */
static pid_t remover;         /* 0: none */
static unsigned int waiting;  /* layers that were moved since it was started */

/* ---- removing: names are the program's, so nothing is followed */

static bool is_dot(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

static bool is_large(int directory, const char *name)
{
    struct stat status;
    return !fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) && S_ISREG(status.st_mode) &&
           status.st_blocks > LARGE_BLOCKS;
}

/* What is immutable or append-only cannot be removed, nor can what is in such a directory. */
static bool unprotect(int file)
{
    int flags = 0;
    bool is_protected = file >= 0 && !ioctl(file, FS_IOC_GETFLAGS, &flags) &&
                        flags & (FS_IMMUTABLE_FL | FS_APPEND_FL);
    flags &= ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
    return is_protected && !ioctl(file, FS_IOC_SETFLAGS, &flags);
}

/* A device is not opened: that may do something. */
static bool unprotect_entry(int directory, const char *name)
{
    struct stat status;
    bool changed = unprotect(directory);
    if (fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) ||
        (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)))
        return changed;
    int file = openat(directory, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    changed |= unprotect(file);
    if (file >= 0)
        close(file);
    return changed;
}

/* All names there are the launcher's own. */
static bool move_away(int directory, const char *name)
{
    for (int i = 0; i < NAME_TRIES; i++) {
        char place[32];
        snprintf(place, sizeof place, "%" PRIu64, next_name++);
        if (!renameat(directory, name, removed, place)) {
            moved++;
            return true;
        }
        if (errno != EEXIST && errno != ENOTEMPTY)
            return false;
    }
    return false;
}

static bool empty(int directory, int depth);

static bool unlink_entry(int directory, const char *name)
{
    return !unlinkat(directory, name, 0) || errno == ENOENT ||
           !unlinkat(directory, name, AT_REMOVEDIR);
}

/* True if nothing is left of it. */
static bool remove_entry(int directory, const char *name, int depth)
{
    if (allowance == 0 || (allowance > 0 && (allowance-- == 1 || is_large(directory, name))))
        return false;
    if (unlink_entry(directory, name) ||
        (errno == EPERM && unprotect_entry(directory, name) && unlink_entry(directory, name)))
        return true;
    if (depth == DEPTH) /* a tree can be deeper than there are descriptors */
        return allowance == ANY && move_away(directory, name);
    int inner = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return inner >= 0 && empty(inner, depth + 1) && !unlinkat(directory, name, AT_REMOVEDIR);
}

/* Closes the directory. True if nothing is left in it. */
static bool empty(int directory, int depth)
{
    DIR *entries = directory < 0 ? NULL : fdopendir(directory);
    if (!entries) {
        if (directory >= 0)
            close(directory);
        return false;
    }
    bool emptied = true;
    for (struct dirent *entry; (allowance || emptied) && (entry = readdir(entries));)
        if (!is_dot(entry->d_name))
            emptied = remove_entry(dirfd(entries), entry->d_name, depth) && emptied;
    closedir(entries);
    return emptied;
}

static bool empty_directory(int parent, const char *name)
{
    return empty(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), 0);
}

/* ---- the second process */

/* Until nothing had to be moved out of a deep tree. */
static void empty_removed(void)
{
    allowance = ANY;
    for (unsigned int before = ~moved; before != moved;) {
        before = moved;
        empty_directory(removed, ".");
    }
}

/* If there can be no other process, it is done here. */
static void start_remover(void)
{
    waiting = 0;
    remover = fork();
    if (remover > 0)
        return;
    if (remover == 0) {
        dup2(removed, STDIN_FILENO); /* the worker must see the end of what the launcher closes */
        syscall(CALL_CLOSE_RANGE, STDIN_FILENO + 1, ~0u, 0);
        removed = STDIN_FILENO;
    }
    empty_removed();
    if (remover == 0)
        _exit(EXIT_SUCCESS);
    remover = 0;
}

/* When layers come faster than they are removed, the next message waits. */
static void hand_over(void)
{
    waiting++;
    if (remover && waiting >= MAX_WAITING) {
        waitpid(remover, NULL, 0);
        remover = 0;
    }
    if (!remover)
        start_remover();
}

bool layer_reaped(pid_t pid)
{
    if (pid != remover)
        return false;
    remover = 0;
    if (waiting)
        start_remover();
    return true;
}

void layer_finish(void)
{
    if (!remover)
        return;
    waitpid(remover, NULL, 0);
    remover = 0;
    if (waiting)
        empty_removed();
}

/* ---- a message's layer */

static bool make_work(int directory);

/* Removes a directory at once if it holds little. */
static void remove_part(int directory, const char *name)
{
    if (remove_entry(directory, name, 0))
        return;
    if (move_away(directory, name)) {
        hand_over();
        return;
    }
    allowance = ANY;
    remove_entry(directory, name, 0);
}

static void remove_pair(int directory)
{
    allowance = AT_ONCE;
    if (unlinkat(directory, "upper", AT_REMOVEDIR) && errno != ENOENT)
        remove_part(directory, "upper");
    allowance = AT_ONCE;
    if (!empty_directory(directory, "work")) {
        remove_part(directory, "work");
        make_work(directory);
    }
}

/* ---- the pairs of directories: one for the root, one for each volume */

static bool make_upper(int directory)
{
    return !mkdirat(directory, "upper", 0755);
}

static bool make_work(int directory)
{
    return !mkdirat(directory, "work", S_IRWXU);
}

static int open_volume(size_t step, bool make)
{
    char number[16];
    snprintf(number, sizeof number, "%zu", step);
    if (make && mkdirat(folder, number, S_IRWXU))
        return -1;
    return openat(folder, number, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool for_volumes(bool (*function)(int directory), bool make)
{
    bool done = true;
    for (size_t i = 0; i < plan.steps && done; i++) {
        if (plan.step[i].kind != VOLUME)
            continue;
        int directory = open_volume(i, make);
        done = directory >= 0 && function(directory);
        if (directory >= 0)
            close(directory);
    }
    return done;
}

/* What an earlier launcher has left is moved, since its removal may take long. */
static bool move_left(void)
{
    DIR *entries = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!entries)
        return false;
    bool done = true;
    for (struct dirent *entry; (entry = readdir(entries));)
        if (!is_dot(entry->d_name) && strcmp(entry->d_name, REMOVED))
            done = (unlink_entry(folder, entry->d_name) || move_away(folder, entry->d_name)) && done;
    closedir(entries);
    return done;
}

bool layer_open(const char *path, char words[WORDS_BYTES])
{
    if (mkdir(path, S_IRWXU) && errno != EEXIST)
        return sandbox_failure(words, path);
    folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool was_there = folder >= 0 && mkdirat(folder, REMOVED, S_IRWXU);
    if (folder < 0 || (was_there && errno != EEXIST))
        return sandbox_failure(words, path);
    removed = openat(folder, REMOVED, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (removed < 0 || !move_left())
        return sandbox_failure(words, path);
    if (mkdirat(folder, "root", S_IRWXU) || mkdirat(folder, "files", S_IRWXU) ||
        !make_work(folder) || !for_volumes(make_work, true))
        return sandbox_failure(words, path);
    if (moved || was_there)
        start_remover();
    return true;
}

bool layer_make(char words[WORDS_BYTES])
{
    return (make_upper(folder) && for_volumes(make_upper, false)) ||
           sandbox_failure(words, "the directory of a message");
}

static bool remove_volume(int directory)
{
    remove_pair(directory);
    return true;
}

void layer_remove(void)
{
    remove_pair(folder);
    for_volumes(remove_volume, false);
}

int layer_directory(void)
{
    return folder;
}
