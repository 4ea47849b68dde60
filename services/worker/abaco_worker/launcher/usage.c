/*
 * What the container used, from the counters of its own control groups (either version), and
 * what the processes used, from the kernel's account of each: whichever there is.
 */
#include "launcher.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CGROUP "/sys/fs/cgroup/"
#define BLOCK_BYTES 512

static char text[64 * 1024];

/* Reads a file into `text`; one that is missing is empty. */
static bool slurp(const char *path)
{
    size_t length = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    for (ssize_t got = 1; descriptor >= 0 && got > 0 && length < sizeof text - 1;) {
        got = read(descriptor, text + length, sizeof text - 1 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    if (descriptor >= 0)
        close(descriptor);
    text[length] = '\0';
    return length > 0;
}

/* Adds up the numbers that follow a key in `text`. */
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
    return slurp(path) ? strtoull(text, NULL, 10) : 0;
}

/* Version 1: one hierarchy per kind, of which the engine shows us our own group. */
static void read_version_1(struct usage *usage)
{
    usage->cpu_ns = number_in(CGROUP "cpuacct/cpuacct.usage");
    usage->peak_bytes = number_in(CGROUP "memory/memory.max_usage_in_bytes");
    if (slurp(CGROUP "memory/memory.oom_control"))
        usage->oom_kills = sum_after("\noom_kill ");
    if (slurp(CGROUP "blkio/blkio.throttle.io_service_bytes_recursive") ||
        slurp(CGROUP "blkio/blkio.throttle.io_service_bytes"))
        usage->io_bytes = sum_after(" Read ") + sum_after(" Write ");
}

static void read_version_2(struct usage *usage)
{
    if (slurp(CGROUP "cpu.stat"))
        usage->cpu_ns = sum_after("usage_usec ") * 1000;
    usage->peak_bytes = number_in(CGROUP "memory.peak");
    if (slurp(CGROUP "memory.events"))
        usage->oom_kills = sum_after("\noom_kill ");
    if (slurp(CGROUP "io.stat"))
        usage->io_bytes = sum_after("rbytes=") + sum_after("wbytes=");
}

static void read_network(struct usage *usage)
{
    slurp("/proc/net/dev");
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *colon = strrchr(line, ':'); /* of an alias, "eth0:1", the last */
        unsigned long long received, sent;
        if (!colon || sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &received,
                             &sent) != 2)
            continue;
        *colon = '\0';
        if (strcmp(line + strspn(line, " "), "lo"))
            usage->network_bytes += received + sent;
    }
}

/*
 * Only the first process of a container sees its own groups there. On version 2 it may still be
 * the machine's root group (--cgroupns=host), and that one alone has no type.
 */
void usage_read(struct usage *usage)
{
    *usage = (struct usage){0};
    read_network(usage);
    if (getpid() != 1)
        return;
    if (!access(CGROUP "cgroup.type", F_OK))
        read_version_2(usage);
    else if (access(CGROUP "cgroup.controllers", F_OK))
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
