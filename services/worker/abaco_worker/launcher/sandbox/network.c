/*
 * A network namespace for each message. Nothing of a message's sockets is left for the next: no listener,
 * no connection in TIME_WAIT, no neighbour or route that was learnt.
 *
 * An empty one is made by the child itself. One that the worker connects is made ahead by the launcher,
 * which sends its descriptor with `waiting`. The worker puts a port of the bridge into it, and sends the
 * program's lines for /etc/hosts with the request. It ends with the program, and takes the port along.
 *
 * If no packet was sent in it while the message ran, not over loopback either, and no program may change
 * links, it is as it was: sockets end with their processes, and what else is kept comes of packets that
 * are sent. Then the next message gets it, since to make and remove one takes as long as half a sandbox.
 */
#include "sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* What an engine sets in a container's network: who may listen at which port, and who may ping. */
static struct {
    const char *name; /* below /proc */
    char value[64];
} settings[] = {
    {"sys/net/ipv4/ip_unprivileged_port_start", ""},
    {"sys/net/ipv4/ping_group_range", ""},
    {"sys/net/ipv6/conf/all/disable_ipv6", ""},
    {"sys/net/ipv6/conf/default/disable_ipv6", ""},
};
#define SETTINGS (sizeof settings / sizeof *settings)

static int made = -1, counters = -1; /* of the network that is connected; -1: none is made */

/* What does not exist, as IPv6 on some machines, is not set. */
void network_learn(void)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        char path[128];
        snprintf(path, sizeof path, "/proc/%s", settings[i].name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = file < 0 ? 0 : read(file, settings[i].value, sizeof settings[i].value - 1);
        settings[i].value[got > 0 ? got : 0] = '\0';
        if (file >= 0)
            close(file);
    }
}

/* The paths of /proc/sys are of the reader's network, in any mount of /proc. */
bool network_set(int proc)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        size_t length = strlen(settings[i].value);
        if (!length)
            continue;
        char now[sizeof settings[i].value];
        int file = openat(proc, settings[i].name, O_RDWR | O_CLOEXEC);
        ssize_t got = file < 0 ? -1 : read(file, now, sizeof now);
        /* Most are so already, and a write may wait for the lock of all links. */
        bool set = (got == (ssize_t)length && !memcmp(now, settings[i].value, length)) ||
                   (file >= 0 && pwrite(file, settings[i].value, length, 0) == (ssize_t)length);
        if (file >= 0)
            close(file);
        if (!set && errno != ENOENT)
            return false;
    }
    return true;
}

bool network_unshare(char words[WORDS_BYTES])
{
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int socket_ = unshare(CLONE_NEWNET) ? -1 : socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool up = socket_ >= 0 && !ioctl(socket_, SIOCSIFFLAGS, &loopback);
    if (!up)
        sandbox_failure(words, "its network");
    if (socket_ >= 0)
        close(socket_);
    return up;
}

/* ---- in the launcher */

bool network_enter(char words[WORDS_BYTES])
{
    if (made >= 0)
        return !setns(made, CLONE_NEWNET) || sandbox_failure(words, "its network");
    if (!network_unshare(words))
        return false;
    /* Here and not in the child: the worker changes the settings when it connects the network. */
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool set = proc >= 0 && network_set(proc);
    if (proc >= 0)
        close(proc);
    made = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    counters = open("/proc/self/net/dev", O_RDONLY | O_CLOEXEC);
    if (set && made >= 0 && counters >= 0)
        return true;
    sandbox_failure(words, "its network");
    network_drop();
    return false;
}

/* The launcher must never stay in a message's. */
void network_return(void)
{
    if (setns(container.network, CLONE_NEWNET))
        exit(EXIT_FAILURE);
}

bool network_is_fixed(void)
{
    const uint64_t changing = 1ull << CAP_NET_ADMIN | 1ull << CAP_SYS_ADMIN;
    return !(container.capabilities[BOUNDING] & changing);
}

int network_descriptor(void)
{
    return made;
}

int network_counters(void)
{
    return counters;
}

void network_drop(void)
{
    if (made >= 0)
        close(made);
    if (counters >= 0)
        close(counters);
    made = counters = -1;
}
