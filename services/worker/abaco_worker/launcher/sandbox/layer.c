/*
 * The directory of a slot on the machine's disk. It holds what a program writes. No container mounts the
 * folder that it is in. It is not a tmpfs: files there would be counted as the program's memory.
 *
 *   upper      of the overlay; new for each message
 *   work       of the overlay; empty between messages
 *   root       where the overlay is mounted while it is made
 *   files      where a tmpfs with copies of hosts, hostname and resolv.conf is mounted meanwhile
 *   <number>   upper and work of a volume
 */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 32

static int folder = -1;
static unsigned int moved;

/* ---- removing: names are the program's, so nothing is followed */

static bool is_dot(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

static void empty(int directory, int top, int depth);

/* A tree can be deeper than there are descriptors: what is too deep is moved to the top. */
static void remove_entry(int directory, const char *name, int top, int depth)
{
    if (!unlinkat(directory, name, 0) || (errno != EISDIR && errno != EPERM))
        return;
    if (!unlinkat(directory, name, AT_REMOVEDIR))
        return;
    if (depth == DEPTH) {
        char place[32];
        snprintf(place, sizeof place, "deep-%u", moved++);
        if (renameat(directory, name, top, place))
            errno = 0; /* the next round finds it */
        return;
    }
    int inner = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inner >= 0)
        empty(inner, top, depth + 1);
    unlinkat(directory, name, AT_REMOVEDIR);
}

/* Closes the directory. */
static void empty(int directory, int top, int depth)
{
    DIR *entries = fdopendir(directory);
    if (!entries) {
        close(directory);
        return;
    }
    for (struct dirent *entry; (entry = readdir(entries));)
        if (!is_dot(entry->d_name))
            remove_entry(directory, entry->d_name, top, depth);
    closedir(entries);
}

/* Removes what is in a directory, whatever a program has made of it. */
static void empty_tree(int parent, const char *name)
{
    int top = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0)
        return;
    for (unsigned int before = ~0u; before != moved;) { /* until nothing had to be moved */
        before = moved;
        int again = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (again >= 0)
            empty(again, top, 0);
    }
    close(top);
}

/* An unused layer has no entry and is removed at once. */
static void remove_pair(int directory)
{
    if (unlinkat(directory, "upper", AT_REMOVEDIR)) {
        empty_tree(directory, "upper");
        unlinkat(directory, "upper", AT_REMOVEDIR);
    }
    empty_tree(directory, "work");
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

/* Removes first what an earlier launcher has left. */
bool layer_open(const char *path, char words[WORDS_BYTES])
{
    if (mkdir(path, S_IRWXU) && errno != EEXIST)
        return sandbox_failure(words, path);
    folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return sandbox_failure(words, path);
    empty_tree(folder, ".");
    if (mkdirat(folder, "root", S_IRWXU) || mkdirat(folder, "files", S_IRWXU) ||
        !make_work(folder) || !for_volumes(make_work, true))
        return sandbox_failure(words, path);
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

int layer_tree(void)
{
    return (int)syscall(CALL_OPEN_TREE, folder, "", TREE_CLONE | TREE_CLOEXEC | AT_EMPTY_PATH);
}
