/*
 * The directory of a message, on the machine's disk: what its program writes, and its own copies of
 * hosts, hostname and resolv.conf. No container mounts the folder it is in. Not on a tmpfs: files
 * there would be counted as the program's memory.
 *
 *   message/upper work root      of the overlay, and where that is mounted while it is made
 *           <number>/upper work  the same for a volume
 *           <number>             a copy of a file
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

static void remove_tree(const char *name)
{
    int top = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (top < 0)
        return;
    for (unsigned int before = ~0u; before != moved;) { /* until nothing had to be moved */
        before = moved;
        int again = openat(top, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (again >= 0)
            empty(again, top, 0);
    }
    close(top);
    unlinkat(folder, name, AT_REMOVEDIR);
}

void layer_remove(void)
{
    remove_tree(MESSAGE);
}

/* ---- making */

/* Removes what an earlier launcher left behind. */
bool layer_open(const char *path, char words[WORDS_BYTES])
{
    if (mkdir(path, S_IRWXU) && errno != EEXIST)
        return sandbox_failure(words, path);
    folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return sandbox_failure(words, path);
    int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = again < 0 ? NULL : fdopendir(again);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (!is_dot(entry->d_name))
            remove_tree(entry->d_name);
    if (entries)
        closedir(entries);
    return true;
}

static bool make_pair(int directory)
{
    return !mkdirat(directory, "upper", 0755) && !mkdirat(directory, "work", S_IRWXU);
}

bool layer_make(char words[WORDS_BYTES])
{
    layer_remove();
    bool made = !mkdirat(folder, MESSAGE, S_IRWXU);
    int directory = made ? openat(folder, MESSAGE, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    made = directory >= 0 && make_pair(directory) && !mkdirat(directory, "root", S_IRWXU);
    for (size_t i = 0; i < plan.steps && made; i++) {
        if (plan.step[i].kind != VOLUME)
            continue;
        char number[16];
        snprintf(number, sizeof number, "%zu", i);
        int inner = mkdirat(directory, number, S_IRWXU)
                        ? -1
                        : openat(directory, number, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        made = inner >= 0 && make_pair(inner);
        if (inner >= 0)
            close(inner);
    }
    int error = errno;
    if (directory >= 0)
        close(directory);
    errno = error;
    return made || sandbox_failure(words, "the directory of a message");
}

int layer_tree(void)
{
    return (int)syscall(CALL_OPEN_TREE, folder, MESSAGE, TREE_CLONE | TREE_CLOEXEC);
}
