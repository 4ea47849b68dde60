/*
 * How a message's program gets its sandbox. The order, and the attack that each step stops:
 *
 *   once in the life of the container, in the helper and the launcher
 *     copy what the engine made: capabilities, filter, masks, limits, label   a weaker copy of it
 *     hold namespaces and groups by descriptors           another process gets the number of a dead one
 *     enter the container's process namespace             programs outlive their container
 *     enter its groups, devices too                       opening the machine's disks
 *   for each message, in the launcher, before the message is there
 *     a directory and control groups of its own           reading what others wrote; using up the rest
 *     a child in new process, ipc and host name namespaces    seeing, signalling or tracing others
 *   in the child (child.c, confine.c and this folder)
 *     new session, default signals                        typing into, or ignoring for, another
 *     a network namespace of its own, if asked            seeing another's connections
 *     root.c: overlay, pivot_root, mounts, masks          the container's files, the machine's files
 *     groups and their namespace                          using more than its share
 *     keyring, limits, label, bounding set, filter        keys of others; all that the engine forbids
 *     close every descriptor, before any path             the machine's root by /proc/self/fd/<n>
 *     wait for the request
 *     user, working directory
 *     groups, gid, uid, capabilities, no_new_privs, exec  rights that were only needed up to here
 */
#include "sandbox.h"

#include <errno.h>
#include <linux/filter.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct sandbox sandbox;

/* What the child gets: this, and the body of the request. */
struct order {
    uint64_t flags, length;
};
static int orders[2] = {-1, -1}; /* a pipe */
static int hosts = -1;           /* in the child: its /etc/hosts */

/* Of Linux 5.3. */
struct clone_arguments {
    _Alignas(8) uint64_t flags, pidfd, child, parent, exit_signal, stack, stack_size, tls;
};

bool sandbox_failure(char words[WORDS_BYTES], const char *what)
{
    snprintf(words, WORDS_BYTES, "cannot make the sandbox: %s: %s", what, strerror(errno));
    return false;
}

/* ---- the request */

static bool take_number(char **body, size_t *length, uint64_t *number)
{
    size_t size = strnlen(*body, *length);
    char *end;
    if (size == 0 || size > 18 || size == *length || **body < '0' || **body > '9')
        return false;
    *number = strtoull(*body, &end, 10);
    if (*end)
        return false;
    *body += size + 1;
    *length -= size + 1;
    return true;
}

static bool take_id(char **body, size_t *length, const char **id)
{
    size_t size = strnlen(*body, *length);
    if (size == 0 || size > REQUEST_ID_BYTES || size == *length)
        return false;
    for (size_t i = 0; i < size; i++)
        if ((*body)[i] <= ' ' || (*body)[i] > '~')
            return false;
    *id = *body;
    *body += size + 1;
    *length -= size + 1;
    return true;
}

/* Its own fields come first: id, memory_bytes, processes, cpu_us, flags. */
bool sandbox_parse(char **body, size_t *length, struct sandbox_request *request)
{
    struct sandbox_limits *limits = &request->limits;
    request->id = "";
    return take_id(body, length, &request->id) &&
           take_number(body, length, &limits->memory_bytes) &&
           take_number(body, length, &limits->processes) &&
           take_number(body, length, &limits->cpu_us) &&
           take_number(body, length, &limits->flags) && !(limits->flags & ~(uint64_t)KNOWN_FLAGS) &&
           (limits->flags & NETWORKS) != NETWORKS;
}

bool sandbox_skip_hosts(char **body, size_t *length)
{
    size_t size = strnlen(*body, *length);
    if (size == *length)
        return false;
    *body += size + 1;
    *length -= size + 1;
    return true;
}

/* ---- once */

static bool has_own_cgroups(void)
{
    struct stat ours, theirs;
    return !stat("/proc/self/ns/cgroup", &ours) &&
           !fstatat(container.process, "ns/cgroup", &theirs, 0) && ours.st_ino != theirs.st_ino;
}

bool sandbox_learn(char words[WORDS_BYTES])
{
    sandbox.on = true;
    sandbox.own_cgroups = has_own_cgroups();
    for (size_t i = 0; i < container.filters; i++)
        filter_to_tree((struct sock_filter *)container.filter[i].steps, &container.filter[i].length);
    return groups_find(words) && plan_mounts(words);
}

bool sandbox_open(const char *folder, char words[WORDS_BYTES])
{
    groups_open();
    network_learn();
    return layer_open(folder, words);
}

/* ---- for each message */

pid_t sandbox_spawn(uint64_t network, char words[WORDS_BYTES])
{
    sandbox.network = network;
    plan_remember();
    if (!layer_make(words) || !groups_make(words))
        return -1;
    if (pipe2(orders, O_CLOEXEC)) {
        sandbox_failure(words, "a pipe");
        return -1;
    }
    struct clone_arguments arguments = {
        .flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS,
        .exit_signal = SIGCHLD,
    };
    bool entered = network != CONNECTED_NETWORK || network_enter(words);
    pid_t child = entered ? (pid_t)syscall(CALL_CLONE3, &arguments, sizeof arguments) : -1;
    if (child < 0 && entered)
        sandbox_failure(words, "its process");
    if (child != 0 && network == CONNECTED_NETWORK)
        network_return();
    if (child != 0) {
        close(orders[0]);
        orders[0] = -1;
    }
    return child;
}

static bool write_all(int file, const void *data, size_t length)
{
    for (const char *at = data; length > 0;) {
        ssize_t written = write(file, at, length);
        if (written <= 0)
            return false;
        at += written;
        length -= (size_t)written;
    }
    return true;
}

bool sandbox_start(pid_t child, const struct sandbox_limits *limits, const char *body, size_t length,
                   char words[WORDS_BYTES])
{
    struct order order = {limits->flags, length};
    if (!groups_limit(limits, child, words))
        return false;
    if (!write_all(orders[1], &order, sizeof order) || !write_all(orders[1], body, length))
        errno = 0; /* the child has failed, and has written why */
    close(orders[1]);
    orders[1] = -1;
    return true;
}

/* ---- in the child */

static bool read_all(int file, void *data, size_t length)
{
    for (char *at = data; length > 0;) {
        ssize_t got = read(file, at, length);
        if (got <= 0)
            return false;
        at += got;
        length -= (size_t)got;
    }
    return true;
}

/* At two descriptors from the lowest on; all others may be closed then. */
bool sandbox_keep_orders(int lowest)
{
    int spare = root_hosts() < 0 ? -1 : fcntl(root_hosts(), F_DUPFD_CLOEXEC, lowest + 2);
    if (orders[0] != lowest)
        orders[0] = dup3(orders[0], lowest, O_CLOEXEC);
    if (spare >= 0)
        hosts = dup3(spare, lowest + 1, O_CLOEXEC);
    else
        close(lowest + 1);
    orders[1] = -1;
    return orders[0] >= 0 && (hosts >= 0) == (root_hosts() >= 0);
}

/* Lines for /etc/hosts come first. They are the worker's, and end with a NUL. */
static bool take_hosts(char **body, size_t *length, char words[WORDS_BYTES])
{
    const char *lines = *body;
    size_t size = strnlen(lines, *length);
    return (sandbox_skip_hosts(body, length) && (!size || hosts >= 0) &&
            write_all(hosts, lines, size)) ||
           sandbox_failure(words, "/etc/hosts");
}

/* If the launcher removes the sandbox without having used it, the pipe ends. */
bool sandbox_await_request(char words[WORDS_BYTES])
{
    static char bytes[REQUEST_BYTES];
    char *body = bytes;
    struct order order;
    const char *why;
    if (!read_all(orders[0], &order, sizeof order) || order.length > sizeof bytes ||
        !read_all(orders[0], body, order.length))
        _exit(EXIT_FAILURE);
    close(orders[0]);
    if (order.flags & NO_NEW_PRIVILEGES)
        container.no_new_privileges = true;
    if (order.flags & CONNECTED_NETWORK && !take_hosts(&body, &order.length, words))
        return false;
    if (hosts >= 0)
        close(hosts);
    if (!request_parse(body, order.length, &sandbox.request, &why)) {
        snprintf(words, WORDS_BYTES, "%s", why);
        return false;
    }
    return true;
}

bool sandbox_enter(char words[WORDS_BYTES])
{
    if (sandbox.network == OWN_NETWORK && !network_unshare(words))
        return false;
    /* Late, so that making the sandbox is not counted as the program's; the group namespace after it,
     * for its root is where the child is then. */
    if (!root_build(words) || !groups_join(words))
        return false;
    if (sandbox.own_cgroups && unshare(CLONE_NEWCGROUP))
        return sandbox_failure(words, "its control groups");
    return true;
}

bool sandbox_measure(struct usage *usage)
{
    return groups_read(usage);
}

void sandbox_remove(void)
{
    if (orders[1] >= 0)
        close(orders[1]);
    orders[1] = -1;
    groups_remove();
    layer_remove();
}
