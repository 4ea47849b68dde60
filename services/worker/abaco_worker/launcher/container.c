/*
 * Reads from a container what the launcher needs to run a program in it: its namespaces, its control
 * groups, and the confinement of its process 1. The program is confined in the same way.
 *
 * All of it comes from the kernel and not from the engine. So whatever an engine does is copied: its
 * seccomp filter, its masks, its limits. Every file is opened through one descriptor of /proc/<pid>.
 * When that process is gone, the descriptor leads nowhere, even if its number is used again.
 */
#include "launcher.h"
#include "sandbox/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TEXT_BYTES (256 * 1024)
#define AWAIT_MS 5000
#define NEVER_KILLED "-1000" /* the score that exempts a process when memory runs out */

struct container container;
static char text[TEXT_BYTES];
static char cgroups[16 * 1024];

static bool failed(char words[WORDS_BYTES], const char *what)
{
    snprintf(words, WORDS_BYTES, "%s: %s", what, strerror(errno));
    return false;
}

/* Reads a file below /proc/<pid>; false if that fails or the file is larger than the buffer. */
static bool read_file(const char *name, char *into, size_t size)
{
    int file = openat(container.process, name, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got = file < 0 ? -1 : 1;
    while (got > 0 && length < size - 1) {
        got = read(file, into + length, size - 1 - length);
        length += got > 0 ? (size_t)got : 0;
    }
    if (file >= 0)
        close(file);
    into[length] = '\0';
    return got == 0;
}

/* ---- the status: capabilities, no_new_privs, umask */

static const char *after(const char *key)
{
    const char *line = strstr(text, key);
    return line ? line + strlen(key) : "";
}

static bool read_status(char words[WORDS_BYTES])
{
    if (!read_file("status", text, sizeof text))
        return failed(words, "cannot read the status of process 1");
    long outer, inner;
    if (sscanf(after("\nNSpid:"), "%ld %ld", &outer, &inner) != 2 || inner != 1) {
        snprintf(words, WORDS_BYTES, "it is not process 1 of a container on this machine");
        return false;
    }
    static const char *keys[CAPABILITY_SETS] = {"\nCapInh:", "\nCapPrm:", "\nCapEff:", "\nCapBnd:",
                                                "\nCapAmb:"};
    for (size_t i = 0; i < CAPABILITY_SETS; i++)
        container.capabilities[i] = strtoull(after(keys[i]), NULL, 16);
    container.no_new_privileges = strtol(after("\nNoNewPrivs:"), NULL, 10) != 0;
    container.umask = (mode_t)strtol(after("\nUmask:"), NULL, 8);
    container.filtered = strtol(after("\nSeccomp:"), NULL, 10) == 2;
    return true;
}

/* ---- the seccomp filters */

/* The kernel returns the newest filter first. */
static bool read_filters(pid_t pid)
{
    for (; container.filters < FILTERS; container.filters++) {
        size_t n = container.filters;
        long length = ptrace(PTRACE_SECCOMP_GET_FILTER, pid, (void *)n, NULL);
        if (length < 0)
            return errno == ENOENT && n > 0;
        if ((size_t)length > FILTER_STEPS)
            return false;
        if (ptrace(PTRACE_SECCOMP_GET_FILTER, pid, (void *)n, container.filter[n].steps) < 0)
            return false;
        container.filter[n].length = (unsigned short)length;
    }
    return false;
}

static bool copy_filters(pid_t pid, char words[WORDS_BYTES])
{
    if (!container.filtered)
        return true;
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL))
        return failed(words, "cannot read the filter of system calls");
    bool copied = !ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) &&
                  waitpid(pid, NULL, __WALL) == pid && read_filters(pid);
    if (!copied)
        failed(words, "cannot read the filter of system calls");
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return copied;
}

/* ---- mounts below /proc */

static bool has_option(const char *options, const char *wanted)
{
    size_t length = strlen(wanted);
    for (const char *at = options; (at = strstr(at, wanted)); at += length)
        if ((at == options || at[-1] == ',') && (!at[length] || at[length] == ','))
            return true;
    return false;
}

static unsigned long mount_flags(const char *options)
{
    static const struct {
        const char *name;
        unsigned long flag;
    } known[] = {{"ro", MS_RDONLY},        {"nosuid", MS_NOSUID},       {"nodev", MS_NODEV},
                 {"noexec", MS_NOEXEC},    {"noatime", MS_NOATIME},     {"nodiratime", MS_NODIRATIME},
                 {"relatime", MS_RELATIME}};
    unsigned long flags = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (has_option(options, known[i].name))
            flags |= known[i].flag;
    return flags;
}

/* A mount that hides a file is not of type proc; one that makes a file read-only is. */
static bool read_mounts(char words[WORDS_BYTES])
{
    if (!read_file("mountinfo", text, sizeof text))
        return failed(words, "cannot read the mounts");
    bool found = false;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char point[PATH_BYTES], options[256], kind[64];
        const char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*d %*d %*s %*s %255s %255s", point, options) != 2 ||
            sscanf(tail, " - %63s", kind) != 1)
            continue;
        bool is_proc = !strcmp(kind, "proc");
        if (!strcmp(point, "/proc")) {
            found = is_proc;
            container.proc_flags = mount_flags(options);
            container.covers = 0;
        }
        if (strncmp(point, "/proc/", 6))
            continue;
        if (container.covers == COVERS || strchr(point, '\\')) {
            snprintf(words, WORDS_BYTES, "it has mounts below /proc that cannot be copied");
            return false;
        }
        struct cover *cover = &container.cover[container.covers++];
        snprintf(cover->path, sizeof cover->path, "%s", point);
        cover->hides = !is_proc;
        cover->flags = mount_flags(options);
    }
    if (!found)
        snprintf(words, WORDS_BYTES, "it has no /proc");
    return found;
}

/* ---- namespaces */

static int namespace(const char *name)
{
    char path[32];
    snprintf(path, sizeof path, "ns/%s", name);
    return openat(container.process, path, O_RDONLY | O_CLOEXEC);
}

static bool open_namespaces(char words[WORDS_BYTES])
{
    struct stat ours, theirs;
    if (stat("/proc/self/ns/user", &ours) || fstatat(container.process, "ns/user", &theirs, 0))
        return failed(words, "cannot see its namespaces");
    if (ours.st_ino != theirs.st_ino) {
        snprintf(words, WORDS_BYTES, "it is in a user namespace of its own");
        return false;
    }
    container.mounts = namespace("mnt");
    container.processes = namespace("pid");
    container.network = namespace("net");
    container.ipc = namespace("ipc");
    container.uts = namespace("uts");
    container.cgroup = namespace("cgroup"); /* since Linux 4.6 */
    if (container.mounts < 0 || container.processes < 0 || container.network < 0 ||
        container.ipc < 0 || container.uts < 0)
        return failed(words, "cannot open its namespaces");
    return true;
}

/* ---- the rest */

static bool read_limits(pid_t pid, char words[WORDS_BYTES])
{
    for (int i = 0; i < RLIM_NLIMITS; i++)
        if (prlimit(pid, (enum __rlimit_resource)i, NULL, &container.limits[i]))
            return failed(words, "cannot read its limits");
    return true;
}

/* Without a security module, reading fails and there is no label. */
static void read_label(void)
{
    char *label = container.label;
    if (!read_file("attr/current", label, sizeof container.label))
        *label = '\0';
    label[strcspn(label, "\n")] = '\0';
    char *mode = strstr(label, " (");
    container.apparmor = mode != NULL;
    if (mode)
        *mode = '\0';
    if (!strcmp(label, "unconfined") || (!mode && !strchr(label, ':')))
        *label = '\0';
}

/* Protects process 1 when memory runs out: without it the container exits. */
static void protect_process_1(void)
{
    if (!read_file("oom_score_adj", container.oom_score, sizeof container.oom_score))
        strcpy(container.oom_score, "0");
    int file = openat(container.process, "oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file >= 0 && write(file, NEVER_KILLED, strlen(NEVER_KILLED)) < 0)
        errno = 0;
    if (file >= 0)
        close(file);
}

/* Waits until process 1 is the pause program. An engine reports a container as running while process
 * 1 is still the engine's own program, which has more rights and perhaps no filter yet. */
static bool await_pause(char words[WORDS_BYTES])
{
    static const struct timespec pause = {0, (long)MILLISECOND};
    for (int i = 0; i < AWAIT_MS; i++) {
        if (!read_file("comm", text, sizeof text))
            return failed(words, "it went away");
        if (!strcmp(text, PAUSE_NAME "\n"))
            return true;
        nanosleep(&pause, NULL);
    }
    snprintf(words, WORDS_BYTES, "its process 1 did not begin in time");
    return false;
}

bool container_learn(pid_t pid, const char *id, char words[WORDS_BYTES])
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    container.process = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (container.process < 0)
        return failed(words, "cannot see its process 1");
    if (!read_file("cgroup", cgroups, sizeof cgroups) || !strstr(cgroups, id)) {
        snprintf(words, WORDS_BYTES, "process %d here is not of container %.12s", (int)pid, id);
        return false;
    }
    if (!await_pause(words) || !read_status(words) || !copy_filters(pid, words) || !read_mounts(words) ||
        !open_namespaces(words) || !read_limits(pid, words))
        return false;
    read_label();
    usage_open(container.process);
    protect_process_1();
    if (faccessat(container.process, "status", F_OK, 0))
        return failed(words, "it went away");
    return true;
}

/* ---- entering */

/* "<number>:<controllers>:<path>" */
bool container_group(char *line, char path[PATH_BYTES], const char **controllers)
{
    strsep(&line, ":");
    const char *root = "/sys/fs/cgroup", *name = strsep(&line, ":");
    *controllers = name;
    if (!name || !line)
        return false;
    bool unified = !*name;
    if (!strncmp(name, "name=", 5))
        name += 5;
    if (unified)
        name = access("/sys/fs/cgroup/cgroup.controllers", F_OK) ? "unified" : ".";
    snprintf(path, PATH_BYTES, "%s/%s", root, name);
    if ((unified || name != *controllers) && access(path, F_OK))
        return false; /* a hierarchy that limits nothing and is not mounted */
    snprintf(path, PATH_BYTES, "%s/%s%s", root, name, line);
    return true;
}

static bool join_group(char *line, char words[WORDS_BYTES])
{
    char path[PATH_BYTES], file_name[PATH_BYTES + 16];
    const char *controllers;
    if (!container_group(line, path, &controllers))
        return true;
    snprintf(file_name, sizeof file_name, "%s/cgroup.procs", path);
    int file = open(file_name, O_WRONLY | O_CLOEXEC);
    bool joined = file >= 0 && write(file, "0", 1) == 1;
    if (!joined)
        failed(words, path);
    if (file >= 0)
        close(file);
    return joined;
}

static bool join_groups(char words[WORDS_BYTES])
{
    char *rest = cgroups;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line && !join_group(line, words))
            return false;
    return true;
}

/* Protects the launcher when memory runs out: it must report. Without the capability for that, the
 * program gets a higher score instead (child.c). */
static bool protect_launcher(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool spared = file >= 0 && write(file, NEVER_KILLED, strlen(NEVER_KILLED)) > 0;
    if (file >= 0)
        close(file);
    return spared;
}

bool container_enter_processes(char words[WORDS_BYTES])
{
    return !setns(container.processes, CLONE_NEWPID) || failed(words, "cannot enter its processes");
}

bool container_enter(char words[WORDS_BYTES])
{
    if (!join_groups(words))
        return false;
    container.spared = protect_launcher();
    if (setns(container.network, CLONE_NEWNET) || setns(container.ipc, CLONE_NEWIPC) ||
        setns(container.uts, CLONE_NEWUTS) ||
        (container.cgroup >= 0 && setns(container.cgroup, CLONE_NEWCGROUP)))
        return failed(words, "cannot enter its namespaces");
    /* The program's namespace, in which it is process 1. Each sandbox makes its own. */
    if (!sandbox.on && unshare(CLONE_NEWPID))
        return failed(words, "cannot make a process namespace");
    container.entered = true;
    return true;
}
