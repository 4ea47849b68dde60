/*
 * Resource usage: of the container, from the counters of its control groups (version 1 or 2), and of
 * the processes, from the kernel's account of each.
 */
#include "launcher.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CGROUP "sys/fs/cgroup"
#define CALL_OPENAT2 437 /* since Linux 5.6; not yet in every C library */
#define BLOCK_BYTES 512

static char text[64 * 1024];

static struct {
    const char *name;
    int file; /* 0: the counter does not exist */
} counters[] = {
    {"cpuacct/cpuacct.usage", 0},
    {"memory/memory.max_usage_in_bytes", 0},
    {"memory/memory.oom_control", 0},
    {"blkio/blkio.throttle.io_service_bytes_recursive", 0},
    {"blkio/blkio.throttle.io_service_bytes", 0},
    {"cpu.stat", 0},
    {"memory.peak", 0},
    {"memory.events", 0},
    {"io.stat", 0},
};

/*
 * With version 2 and --cgroupns=host, the group is the host's root group. It is the only one without a
 * type, and is not used.
 */
void usage_open(int process)
{
    int root = openat(process, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH,
    };
    int groups = (int)syscall(CALL_OPENAT2, root, CGROUP, &how, sizeof how);
    bool whole_machine = !faccessat(groups, "cgroup.controllers", F_OK, 0) &&
                         faccessat(groups, "cgroup.type", F_OK, 0);
    how.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC;
    how.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH; /* cpuacct is a symbolic link */
    for (size_t i = 0; i < sizeof counters / sizeof *counters && !whole_machine; i++) {
        int file = (int)syscall(CALL_OPENAT2, groups, counters[i].name, &how, sizeof how);
        counters[i].file = file > 0 ? file : 0;
    }
    close(groups);
    close(root);
}

/* Reads a file from its beginning into `text`. */
static bool read_whole(int file)
{
    size_t length = 0;
    for (ssize_t got = 1; got > 0 && length < sizeof text - 1;) {
        got = pread(file, text + length, sizeof text - 1 - length, (off_t)length);
        length += got > 0 ? (size_t)got : 0;
    }
    text[length] = '\0';
    return length > 0;
}

/* Reads a counter into `text`; false if it does not exist. */
static bool read_counter(const char *name)
{
    int file = 0;
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        if (!strcmp(counters[i].name, name))
            file = counters[i].file;
    return file && read_whole(file);
}

/* Returns the sum of the numbers that follow a key in `text`. */
static uint64_t sum_after(const char *key)
{
    uint64_t sum = 0;
    for (const char *at = text; (at = strstr(at, key));) {
        at += strlen(key);
        sum += strtoull(at, NULL, 10);
    }
    return sum;
}

static uint64_t number_in(const char *path)
{
    return read_counter(path) ? strtoull(text, NULL, 10) : 0;
}

/* Version 1: one hierarchy per controller; the engine mounts the container's own group of each. */
static void read_version_1(struct usage *usage)
{
    usage->cpu_ns = number_in("cpuacct/cpuacct.usage");
    usage->peak_bytes = number_in("memory/memory.max_usage_in_bytes");
    if (read_counter("memory/memory.oom_control"))
        usage->oom_kills = sum_after("\noom_kill ");
    if (read_counter("blkio/blkio.throttle.io_service_bytes_recursive") ||
        read_counter("blkio/blkio.throttle.io_service_bytes"))
        usage->io_bytes = sum_after(" Read ") + sum_after(" Write ");
}

static void read_version_2(struct usage *usage)
{
    if (read_counter("cpu.stat"))
        usage->cpu_ns = sum_after("usage_usec ") * 1000;
    usage->peak_bytes = number_in("memory.peak");
    if (read_counter("memory.events"))
        usage->oom_kills = sum_after("\noom_kill ");
    if (read_counter("io.stat"))
        usage->io_bytes = sum_after("rbytes=") + sum_after("wbytes=");
}

/* `counters` is /proc/net/dev of another network than the launcher's, or -1. */
static void read_network(int counters, struct usage *usage)
{
    int file = counters >= 0 ? counters : open("/proc/net/dev", O_RDONLY | O_CLOEXEC);
    usage->network_known = file >= 0 && read_whole(file);
    if (file >= 0 && file != counters)
        close(file);
    char *rest = usage->network_known ? text : NULL;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *colon = strrchr(line, ':'); /* the last one: an alias is "eth0:1" */
        unsigned long long received, sent, packets;
        if (!colon || sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu %llu", &received,
                             &sent, &packets) != 3)
            continue;
        *colon = '\0';
        usage->packets_sent += packets;
        if (strcmp(line + strspn(line, " "), "lo"))
            usage->network_bytes += received + sent;
    }
}

void usage_read(int network, struct usage *usage)
{
    *usage = (struct usage){0};
    read_network(network, usage);
    if (read_counter("cpu.stat"))
        read_version_2(usage);
    else
        read_version_1(usage);
}

static uint64_t nanoseconds(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * SECOND + (uint64_t)time->tv_usec * 1000;
}

void usage_add(struct usage *total, uint64_t *max_rss_bytes, const struct rusage *process)
{
    uint64_t rss = (uint64_t)process->ru_maxrss * 1024;
    if (rss > *max_rss_bytes)
        *max_rss_bytes = rss;
    total->cpu_ns += nanoseconds(&process->ru_utime) + nanoseconds(&process->ru_stime);
    total->io_bytes += (uint64_t)(process->ru_inblock + process->ru_oublock) * BLOCK_BYTES;
}
