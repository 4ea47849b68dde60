/*
 * A control group for each message, below the container's: its limits, its exact account, and who is
 * killed when memory runs out. The launcher is in the container's groups, so the program starts in
 * those of every hierarchy, devices too (else it could open any disk), and moves down in a few.
 *
 * Version 1 has one hierarchy for each controller; groups are made for memory, cpu, cpuacct and pids.
 * Version 2 has one, and a group that has processes cannot give controllers to groups below it. So
 * the container's own processes move into a leaf, and each message gets one beside it.
 */
#include "sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define HIERARCHIES 16u
#define LEAF "abaco-slot"
#define TRIES 200 /* of removing a group */
#define DEPTH 16

static struct hierarchy {
    int base;      /* the container's group */
    int message;   /* the message's; -1 is none */
    dev_t device;  /* of the file system */
    bool memory, cpu, account, processes, unified;
    bool leaves;   /* a message gets a group here */
} hierarchies[HIERARCHIES];
static size_t count;
static char text[16 * 1024];

static bool write_at(int directory, const char *name, const char *what)
{
    int file = openat(directory, name, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    ssize_t length = (ssize_t)strlen(what);
    bool written = write(file, what, (size_t)length) == length;
    int error = errno;
    close(file);
    errno = error;
    return written;
}

static bool write_number(int directory, const char *name, uint64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRIu64, number);
    return write_at(directory, name, digits);
}

static bool read_at(int directory, const char *name)
{
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    text[got > 0 ? got : 0] = '\0';
    return got >= 0;
}

static uint64_t number_at(int directory, const char *name)
{
    return read_at(directory, name) ? strtoull(text, NULL, 10) : 0;
}

static uint64_t number_after(const char *key)
{
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* ---- the container's groups */

static bool has_controller(const char *list, const char *wanted)
{
    size_t length = strlen(wanted);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, wanted, length) && (!at[length] || at[length] == ','))
            return true;
    }
    return false;
}

/* One line of /proc/<pid>/cgroup. A hierarchy that is mounted nowhere limits nothing. */
static void open_hierarchy(char *line)
{
    char path[PATH_BYTES];
    const char *controllers;
    struct stat status;
    if (count == HIERARCHIES || !container_group(line, path, &controllers))
        return;
    size_t length = strlen(path);
    if (path[length - 1] == '/') /* the machine's own group: it is not the container's alone */
        return;
    int base = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (base < 0 || fstat(base, &status))
        return;
    struct hierarchy *made = &hierarchies[count++];
    *made = (struct hierarchy){
        .base = base,
        .message = -1,
        .device = status.st_dev,
        .memory = has_controller(controllers, "memory"),
        .cpu = has_controller(controllers, "cpu"),
        .account = has_controller(controllers, "cpuacct"),
        .processes = has_controller(controllers, "pids"),
        .unified = !*controllers,
    };
    made->leaves = made->memory || made->cpu || made->account || made->processes;
}

/* False where the container may not have groups below its own; then it stays as it is. */
static bool make_leaf(struct hierarchy *in)
{
    if (!read_at(in->base, "cgroup.controllers") || !strstr(text, "memory"))
        return false;
    bool pids = strstr(text, "pids"), cpu = strstr(text, "cpu"), io = strstr(text, "io");
    if (mkdirat(in->base, LEAF, 0755) && errno != EEXIST)
        return false;
    int leaf = openat(in->base, LEAF, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool moved = leaf >= 0 && write_at(leaf, "cgroup.procs", "1") && /* the pausing process */
                 write_at(leaf, "cgroup.procs", "0");
    if (leaf >= 0)
        close(leaf);
    if (!moved || !write_at(in->base, "cgroup.subtree_control", "+memory"))
        return false;
    in->memory = true;
    in->processes = pids && write_at(in->base, "cgroup.subtree_control", "+pids");
    in->cpu = cpu && write_at(in->base, "cgroup.subtree_control", "+cpu");
    if (io && !write_at(in->base, "cgroup.subtree_control", "+io"))
        errno = 0; /* the container's own counter serves */
    return true;
}

static bool remove_group(int base, const char *name, int depth);

/* A program that may write to its group can have made others in it. */
static void remove_groups_in(int base, const char *name, int depth)
{
    int group = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = group < 0 ? NULL : fdopendir(group);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (entry->d_type == DT_DIR && *entry->d_name != '.')
            remove_group(group, entry->d_name, depth + 1);
    if (entries)
        closedir(entries);
    else if (group >= 0)
        close(group);
}

/* What ended in it may still be on its way out. */
static bool remove_group(int base, const char *name, int depth)
{
    static const struct timespec pause = {0, (long)MILLISECOND / 4};
    for (int tries = 0; tries < TRIES && depth < DEPTH; tries++) {
        if (!unlinkat(base, name, AT_REMOVEDIR) || errno == ENOENT)
            return true;
        if (errno != EBUSY)
            return false;
        if (tries)
            nanosleep(&pause, NULL);
        else
            remove_groups_in(base, name, depth);
    }
    return false;
}

/* Where a group cannot be made (a read-only /sys/fs/cgroup), none is in any hierarchy. */
static bool may_make(struct hierarchy *in)
{
    if (mkdirat(in->base, "abaco-try", 0755) && errno != EEXIST)
        return false;
    return !unlinkat(in->base, "abaco-try", AT_REMOVEDIR);
}

bool groups_find(char words[WORDS_BYTES])
{
    static char lines[16 * 1024];
    int file = openat(container.process, "cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, lines, sizeof lines - 1);
    if (file >= 0)
        close(file);
    if (got <= 0)
        return sandbox_failure(words, "the container's control groups");
    lines[got] = '\0';
    char *rest = lines;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line)
            open_hierarchy(line);
    return true;
}

void groups_open(void)
{
    for (size_t i = 0; i < count; i++) {
        if (hierarchies[i].unified)
            hierarchies[i].leaves = make_leaf(&hierarchies[i]);
        if (hierarchies[i].leaves)
            hierarchies[i].leaves = may_make(&hierarchies[i]);
        if (hierarchies[i].leaves) /* of a launcher that was killed */
            remove_group(hierarchies[i].base, MESSAGE, 0);
    }
}

int groups_directory(dev_t device)
{
    for (size_t i = 0; i < count; i++)
        if (hierarchies[i].device == device)
            return hierarchies[i].message >= 0 ? hierarchies[i].message : hierarchies[i].base;
    return -1;
}

/* ---- a message's */

static bool limit_version_1(const struct hierarchy *in, const struct sandbox_limits *limits)
{
    int group = in->message;
    if (in->memory && limits->memory_bytes) {
        if (!write_number(group, "memory.limit_in_bytes", limits->memory_bytes))
            return false;
        /* With swap; a kernel that does not count swap has no such file. */
        if (!write_number(group, "memory.memsw.limit_in_bytes", limits->memory_bytes) &&
            errno != ENOENT)
            return false;
    }
    if (in->processes && limits->processes && !write_number(group, "pids.max", limits->processes))
        return false;
    return !in->cpu || !limits->cpu_us ||
           (write_number(group, "cpu.cfs_period_us", 100000) &&
            write_number(group, "cpu.cfs_quota_us", limits->cpu_us));
}

static bool limit_version_2(const struct hierarchy *in, const struct sandbox_limits *limits)
{
    int group = in->message;
    char quota[64];
    snprintf(quota, sizeof quota, "%" PRIu64 " 100000", limits->cpu_us);
    if (limits->memory_bytes && (!write_number(group, "memory.max", limits->memory_bytes) ||
                                 (!write_number(group, "memory.swap.max", 0) && errno != ENOENT)))
        return false;
    if (in->processes && limits->processes && !write_number(group, "pids.max", limits->processes))
        return false;
    return !in->cpu || !limits->cpu_us || write_at(group, "cpu.max", quota);
}

/* Where the processor's time is counted elsewhere, it needs a group only for a limit. */
static bool is_only_limit(const struct hierarchy *in)
{
    return in->cpu && !in->account && !in->memory && !in->processes;
}

static bool make_group(struct hierarchy *in)
{
    /* Never that of the message before, if it could not be removed: it has its counters. */
    if (mkdirat(in->base, MESSAGE, 0755) &&
        (errno != EEXIST || !remove_group(in->base, MESSAGE, 0) ||
         mkdirat(in->base, MESSAGE, 0755)))
        return false;
    in->message = openat(in->base, MESSAGE, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return in->message >= 0;
}

bool groups_make(char words[WORDS_BYTES])
{
    for (size_t i = 0; i < count; i++)
        if (hierarchies[i].leaves && !is_only_limit(&hierarchies[i]) && !make_group(&hierarchies[i]))
            return sandbox_failure(words, "a control group");
    return true;
}

/* The child has joined its groups already, and does nothing until it gets its request. */
bool groups_limit(const struct sandbox_limits *limits, pid_t child, char words[WORDS_BYTES])
{
    for (size_t i = 0; i < count; i++) {
        struct hierarchy *in = &hierarchies[i];
        if (in->leaves && in->message < 0 && limits->cpu_us &&
            (!make_group(in) || !write_number(in->message, "cgroup.procs", (uint64_t)child)))
            return sandbox_failure(words, "a control group");
        if (in->message >= 0 && !(in->unified ? limit_version_2 : limit_version_1)(in, limits))
            return sandbox_failure(words, "the limits of its control group");
    }
    return true;
}

bool groups_join(char words[WORDS_BYTES])
{
    for (size_t i = 0; i < count; i++)
        if (hierarchies[i].message >= 0 && !write_at(hierarchies[i].message, "cgroup.procs", "0"))
            return sandbox_failure(words, "its control groups");
    return true;
}

static void read_version_2(int group, struct usage *usage)
{
    if (read_at(group, "cpu.stat"))
        usage->cpu_ns = number_after("usage_usec ") * 1000;
    usage->peak_bytes = number_at(group, "memory.peak"); /* of Linux 5.19 */
    if (read_at(group, "memory.events"))
        usage->oom_kills = number_after("\noom_kill ");
}

/* Memory and processor time; false if the message has no group for both, and nothing is set. */
bool groups_read(struct usage *into)
{
    struct usage read = *into, *usage = &read;
    bool memory = false, account = false;
    for (size_t i = 0; i < count; i++) {
        struct hierarchy *in = &hierarchies[i];
        if (in->message < 0)
            continue;
        if (in->unified)
            read_version_2(in->message, usage);
        if (in->account)
            usage->cpu_ns = number_at(in->message, "cpuacct.usage");
        if (in->memory && !in->unified) {
            usage->peak_bytes = number_at(in->message, "memory.max_usage_in_bytes");
            if (read_at(in->message, "memory.oom_control"))
                usage->oom_kills = number_after("\noom_kill ");
        }
        memory |= in->memory;
        account |= in->account || in->unified;
    }
    if (memory && account)
        *into = read;
    return memory && account;
}

void groups_remove(void)
{
    for (size_t i = 0; i < count; i++) {
        struct hierarchy *in = &hierarchies[i];
        if (in->message < 0)
            continue;
        close(in->message);
        in->message = -1;
        remove_group(in->base, MESSAGE, 0);
    }
}
